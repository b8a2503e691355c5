"""Memory that is freed goes back to the system at once."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD = -3  # of mallopt(3)
_LARGE_BYTES = 1 << 20


def return_freed_memory() -> None:
    """Have glibc give every large block a mapping of its own, for the rest of the process; elsewhere do nothing.

    By itself it raises the size from which it does so with every block that is freed, up to 32 MiB, and keeps
    what is below in one pool for each thread: several times the memory that is in use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
