"""Progress-reporting interface of long work, independent of what shows the progress."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

Advance = Callable[[float], None]
"""A function called with the amount of work that was just done, in the unit of the stage.

It may have a method `show`, which receives the piece of work that begins, such as the name of a tensor.
"""


class Progress(Protocol):
    """A receiver of notes, events and stages of work."""

    def note(self, text: str) -> None:
        """Report one fact in a sentence."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Report a finished piece of work, such as a step, in machine-readable form."""

    def stage(self, title: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Advance]:
        """Open one stage of work, whose progress is reported by calling the value of the `with` block.

        Args:
            title: the work, in words.
            total: the amount of work in the stage, if known.
            unit: the unit of the amounts.
        """
        ...


class SilentProgress:
    """A receiver that ignores everything."""

    def note(self, text: str) -> None:
        """Ignore the sentence."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Ignore the event."""

    def stage(self, *_args: Any, **_kwargs: Any) -> AbstractContextManager[Advance]:
        """Ignore the stage."""
        return nullcontext(_ignore)


class WorkCounter:
    """The stage that the work of a thread counts for, and the amount that was counted."""

    def __init__(self, advance: Advance) -> None:
        """Count for the stage that `advance` belongs to."""
        self.done = 0.0
        self._advance = advance

    def add(self, amount: float) -> None:
        """Count work that was just done."""
        self.done += amount
        self._advance(amount)

    def show(self, item: str) -> None:
        """Show the piece of work that begins, if the receiver of the progress can."""
        show = getattr(self._advance, "show", None)
        if show is not None:
            show(item)


class _Current(threading.local):
    counter: WorkCounter | None = None


_current = _Current()


@contextmanager
def counting(advance: Advance) -> Iterator[WorkCounter]:
    """Let the functions that this thread calls in the block count their work for a stage.

    They need not know of the stage: they call `count_work` and `show_item`.
    """
    before, counter = _current.counter, WorkCounter(advance)
    _current.counter = counter
    try:
        yield counter
    finally:
        _current.counter = before


def current_counter() -> WorkCounter | None:
    """Return the counter of this thread's work, None if nothing is counted."""
    return _current.counter


def count_work(amount: float) -> None:
    """Count work that was just done, in the unit of the stage that this thread works for, if there is one."""
    if _current.counter is not None:
        _current.counter.add(amount)


def show_item(item: str) -> None:
    """Show the piece of work that this thread begins, such as the name of a tensor."""
    if _current.counter is not None:
        _current.counter.show(item)


_waits: list[str] = []


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show in the block what is waited for, whatever stages are open."""
    _waits.append(text)
    try:
        yield
    finally:
        _waits.remove(text)


def waits() -> tuple[str, ...]:
    """Return what is waited for now."""
    return tuple(dict.fromkeys(_waits))


def _ignore(_done: float) -> None:
    pass
