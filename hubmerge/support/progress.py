"""Progress-reporting interface of long work, independent of what shows the progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

Advance = Callable[[float], None]
"""A function called with the amount of work that was just done, in the unit of the stage."""


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


def _ignore(_done: float) -> None:
    pass
