"""How many threads the kernels of torch use, settled for one thread of this process whatever the others settle.

The order in which a sum is taken, and so its last digits, depends on it. `torch.set_num_threads` alone settles it for
the thread that calls it, for every thread that has not computed yet, and, where matrix products come from MKL, for all.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def compute_with(threads: int) -> None:
    """Let the kernels that this thread calls use so many threads from now on, whatever others choose for themselves."""
    torch.get_num_threads()  # at its first look a thread takes over the number of the process: not after this line
    torch.set_num_threads(threads)
    setting = _setting_of_mkl()
    if setting is not None:
        setting(threads)


@functools.cache
def _setting_of_mkl() -> Callable[[int], int] | None:
    """MKL's own setting for one thread, which torch does not offer; None where there is no MKL."""
    if not torch.backends.mkl.is_available():
        return None
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
        found: Callable[[int], int] = library.MKL_Set_Num_Threads_Local
    except (AttributeError, OSError):
        return None
    return found
