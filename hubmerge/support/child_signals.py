"""Signals of this process and its child processes: passed on to them, or kept from them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from hubmerge.support.interrupts import SIGNALS


@contextlib.contextmanager
def forwarded(send: Callable[[int], object]) -> Iterator[None]:
    """Pass each signal on, for example to a child process, until the block ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, lambda number, _: send(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Keep the signals from processes that are started in the block: they end when this process ends them."""
    mask = getattr(signal, "pthread_sigmask", None)  # not on Windows
    earlier = None if mask is None else mask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        if mask is not None:
            mask(signal.SIG_SETMASK, earlier)
