"""Large blocks of memory go back to the system when they are freed; small ones are kept and used again."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

_MMAP_THRESHOLD = -3  # of mallopt(3)
_TRIM_THRESHOLD = -1
_LARGE_BYTES = 7 << 20
"""A float64 matrix of 768 x 768 is smaller, and so is what is made of one piece of a tensor."""

_KEPT_BYTES = 8 << 20
"""Of what is free, for each thread: some of the blocks that are not large, to be used again."""


def return_freed_memory() -> None:
    """Have glibc give every large block a mapping of its own, for the rest of the process; elsewhere do nothing.

    By itself glibc raises the size from which it does so with every block that is freed, up to 32 MiB, and keeps what
    is below in one pool for each thread: several times the memory that is in use.
    """
    _call("mallopt", _MMAP_THRESHOLD, _LARGE_BYTES)
    _call("mallopt", _TRIM_THRESHOLD, _KEPT_BYTES)


def return_gaps() -> None:
    """Have glibc give back what is free between blocks in use: blocks of many sizes leave more and more of it."""
    _call("malloc_trim", _KEPT_BYTES)


def _call(name: str, *arguments: int) -> None:
    with suppress(AttributeError, OSError, TypeError):
        getattr(_libc(), name)(*arguments)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
