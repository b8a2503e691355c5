"""Settings of glibc's memory allocator: large blocks are returned to the system when freed, small ones are reused."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

_MMAP_THRESHOLD = -3
"""Number of the option in mallopt(3), like `_TRIM_THRESHOLD`."""

_TRIM_THRESHOLD = -1

_LARGE_BYTES = 7 << 20
"""Size from which a block counts as large: above a float64 matrix of 768 x 768 and above one piece of a tensor."""

_REUSED_BYTES = 8 << 20
"""Free memory that each thread keeps for reuse."""


def return_freed_memory() -> None:
    """Give every large block its own mapping for the rest of the process; without glibc, do nothing.

    By default glibc raises this threshold with every freed block, up to 32 MiB, and keeps smaller blocks in one pool
    for each thread. The pools then take several times the memory in use.
    """
    _call("mallopt", _MMAP_THRESHOLD, _LARGE_BYTES)
    _call("mallopt", _TRIM_THRESHOLD, _REUSED_BYTES)


def trim_free_memory() -> None:
    """Return free memory between blocks in use to the system; blocks of many sizes leave more and more gaps."""
    _call("malloc_trim", _REUSED_BYTES)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library if it exists. Without it only memory use differs."""
    with suppress(AttributeError, OSError, TypeError):
        getattr(_libc(), name)(*arguments)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
