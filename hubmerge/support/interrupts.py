"""Stop of long work by SIGINT, SIGTERM or SIGHUP.

The first signal prints one line and requests a stop: the main thread raises KeyboardInterrupt, the other threads raise
it in their next call of `check`, and nothing is published any more. The second signal ends the program at once.

A thread listens to the signals, so that the line appears while the main thread is inside a library.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

STOPPING = "stopping after the current tensor; press again to stop now"
"""The line that the first signal prints."""

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

INTERRUPTED = 130
"""Exit status of an interrupted program."""

GRACE_SECONDS = 10.0
"""Time from the first signal after which a program ends even if a thread has not stopped."""

_PUBLISHING_SECONDS = 1.0
"""Longest wait for a request that changes the Hub, before the line is printed."""

SAME_CAUSE_SECONDS = 1.0
"""Time after the line in which a signal counts with the first one: `timeout` sends one to the process and one to its
group, and launchers send SIGTERM after a Ctrl-C."""

PRESSED_SECONDS = 0.3
"""This time for a second SIGINT, which may come from somebody who presses Ctrl-C again."""

_DELIVERY_SECONDS = 0.05
"""Time in which the main thread reacts to a signal unless it is inside a library, or the signal woke another thread."""

_requested = threading.Event()
_publishing = threading.Lock()
_kills: list[Callable[[], object]] = []


class _Main:
    """State of the main thread: whether a handler is installed, and blocks that an interrupt must not end."""

    listener: _Listener | None = None
    delays = 0
    delayed = False


def _is_wanted(_record: logging.LogRecord) -> bool:
    """Drop what `concurrent.futures` logs about threads that an interrupt stops between two pieces of work."""
    return not _requested.is_set()


def requested() -> bool:
    """Return True if a stop was requested."""
    return _requested.is_set()


def request() -> None:
    """Request a stop of all threads."""
    logging.getLogger("concurrent.futures").addFilter(_is_wanted)
    _requested.set()


def check() -> None:
    """Raise KeyboardInterrupt if a stop was requested. Call it between two pieces of work."""
    if _requested.is_set():
        raise KeyboardInterrupt


def wait(seconds: float) -> None:
    """Sleep; raise KeyboardInterrupt as soon as a stop is requested."""
    check()
    if threading.current_thread() is threading.main_thread():
        time.sleep(seconds)
    else:
        _requested.wait(seconds)
    check()


@contextlib.contextmanager
def publishing() -> Iterator[None]:
    """Hold back the line of the first signal during a request that changes the Hub.

    Raises:
        KeyboardInterrupt: a stop was requested before or during the request.
    """
    with delayed(), _publishing:
        check()
        yield


@contextlib.contextmanager
def delayed() -> Iterator[None]:
    """Raise an interrupt of the main thread at the end of the block instead of inside it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Main.delays += 1
    try:
        yield
    finally:
        _Main.delays -= 1
    if _Main.delayed and not _Main.delays:
        _Main.delayed = False
        raise KeyboardInterrupt


@contextlib.contextmanager
def killed_on_exit(kill: Callable[[], object]) -> Iterator[None]:
    """Call `kill` if the program ends at once while the block runs. It ends child processes."""
    _kills.append(kill)
    try:
        yield
    finally:
        _kills.remove(kill)


def settle() -> None:
    """Wait until the line of a signal that arrived is printed."""
    if _Main.listener is not None and _Main.listener.heard.is_set():
        _Main.listener.announced.wait(2 * _PUBLISHING_SECONDS)


@contextlib.contextmanager
def handled(*, program: bool = False, quiet: bool = False, raises: bool = True) -> Iterator[None]:
    """Handle signals until the block ends, unless a block around it does, or this is not the main thread.

    Signals that are ignored or have a handler of their own stay as they are.

    Args:
        program: True if the process has no other work: the second signal then ends it, and so does the first one after
            `GRACE_SECONDS`.
        quiet: print nothing; another process of the run does.
        raises: False to request a stop only, without KeyboardInterrupt in the main thread.

    Raises:
        KeyboardInterrupt: a signal arrived.
    """
    if threading.current_thread() is not threading.main_thread() or _Main.listener is not None:
        yield
        return
    listener = _Listener(program=program, quiet=quiet, raises=raises)
    _requested.clear()
    _Main.listener, _Main.delays, _Main.delayed = listener, 0, False
    listener.open()
    try:
        yield
    finally:
        # A program that was interrupted may still wait for its threads: the second signal must end it.
        if not (program and listener.heard.is_set()):
            listener.close()
            _Main.listener = None
            _requested.clear()


def _wake_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


class _Listener:
    """Handler of the signals, and the thread that hears them first."""

    def __init__(self, *, program: bool, quiet: bool, raises: bool) -> None:
        self.heard = threading.Event()
        self.announced = threading.Event()
        self._program = program
        self._quiet = quiet
        self._raises = raises
        self._handlers: dict[int, object] = {}
        self._first: tuple[int, float] | None = None
        self._answered = float("inf")
        self._repeats = 0
        self._repeated = False
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)

    def open(self) -> None:
        """Install the handlers."""
        self._outlet, self._inlet = socket.socketpair()
        self._inlet.settimeout(0)
        for number in SIGNALS:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                self._handlers[number] = signal.signal(number, self._handle)
        self._wakeup = signal.set_wakeup_fd(self._inlet.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def close(self) -> None:
        """Restore the earlier handlers."""
        # Only the main thread may; a generator can be closed by another one.
        with contextlib.suppress(ValueError):
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler)  # type: ignore[arg-type]
        self._inlet.send(b"\0")
        self._thread.join()
        self._inlet.close()
        self._outlet.close()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt in the main thread, which is where Python calls this."""
        again, self._repeated = self._repeated and self.heard.is_set(), False
        if again or not self._raises or (self.heard.is_set() and (self._program or self._is_first_again(number))):
            return
        self.heard.set()
        if _Main.delays:
            _Main.delayed = True
        else:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while True:
            patience = None
            if self._program and self._first is not None:
                patience = max(0.0, self._first[1] + GRACE_SECONDS - time.monotonic())
            if not select.select([self._outlet], [], [], patience)[0]:
                self._end("hubmerge: interrupted; the next run continues")
            for number in self._outlet.recv(64):
                if number == 0:
                    return
                # Another handler may have taken the place of ours.
                if number in self._handlers and signal.getsignal(number) == self._handle:
                    self._hear(number)

    def _hear(self, number: int) -> None:
        now = time.monotonic()
        if self._repeats:
            self._repeats -= 1
        elif self._first is None:
            self._first = number, now
            self._request_stop()
            if self._raises and not self.heard.wait(_DELIVERY_SECONDS):
                # The system gave the signal to another thread: wake the main thread.
                self._repeats, self._repeated = 1, True
                _wake_main_thread(number)
            self._answered = time.monotonic()
        elif not self._is_first_again(number):
            self._end("hubmerge: stopped")

    def _is_first_again(self, number: int) -> bool:
        """Return True if a signal after the first one has its cause, and is no second press."""
        pressed = number == signal.SIGINT and (self._first is None or number == self._first[0])
        return time.monotonic() <= self._answered + (PRESSED_SECONDS if pressed else SAME_CAUSE_SECONDS)

    def _request_stop(self) -> None:
        """Let a request that changes the Hub end, then request the stop and print the line."""
        free = _publishing.acquire(timeout=_PUBLISHING_SECONDS)
        request()
        if free:
            _publishing.release()
        self._print(STOPPING if free else STOPPING.replace("the current tensor", "the request that is being sent"))
        self.announced.set()

    def _end(self, line: str) -> None:
        """End the program, but not the program of somebody else that has called hubmerge."""
        if not self._program:
            return
        self._print(line)
        for kill in list(_kills):
            with contextlib.suppress(Exception):
                kill()
        os._exit(INTERRUPTED)

    def _print(self, line: str) -> None:
        if self._quiet:
            return
        # The terminal may be gone, as after SIGHUP.
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
