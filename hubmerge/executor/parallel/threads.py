"""Number of threads that torch's kernels use, set for one thread of this process.

The order of the terms of a sum depends on this number, and so do the last digits. `torch.set_num_threads` also changes
it for every thread that has not computed yet and, where MKL computes matrix products, for all threads.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def set_kernel_threads(threads: int) -> None:
    """Set how many threads the kernels use that this thread calls, whatever other threads set."""
    # The first call in a thread copies the count of the process. Make it before the thread sets its own.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    set_mkl_threads = _mkl_setter()
    if set_mkl_threads is not None:
        set_mkl_threads(threads)


@functools.cache
def _mkl_setter() -> Callable[[int], int] | None:
    """Return MKL's function that sets the count for one thread, which torch does not offer; None without MKL."""
    if not torch.backends.mkl.is_available():
        return None
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
        setter: Callable[[int], int] = library.MKL_Set_Num_Threads_Local
    except (AttributeError, OSError):
        return None
    return setter
