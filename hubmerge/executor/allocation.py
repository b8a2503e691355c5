"""Large blocks of memory go back to the system when they are freed; small ones are kept and used again."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # of mallopt(3)
_TRIM_THRESHOLD = -1
_LARGE_BYTES = 288 << 10
_KEPT_BYTES = 1 << 20
"""Of what is free, for each thread: some of the blocks that are not large, to be used again."""


def return_freed_memory() -> None:
    """Have glibc give every large block a mapping of its own, for the rest of the process; elsewhere do nothing.

    What is made of one piece of a tensor (`ELEMENTS_AT_ONCE`) is not large. By itself glibc raises the size from which
    it does so with every block that is freed, up to 32 MiB, and keeps what is below in one pool for each thread:
    several times the memory that is in use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
