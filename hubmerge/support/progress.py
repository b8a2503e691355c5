"""How long work tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

Advance = Callable[[float], None]
"""Called with how much more is done, in the unit of the stage."""


class Progress(Protocol):
    """Where a run tells what it is doing."""

    def note(self, text: str) -> None:
        """Tell one fact in a sentence."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Hand over the machine-readable form of something that is done, such as a step."""

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Enclose one piece of work; what it yields is called with each part done."""
        yield lambda done: None


class SilentProgress:
    """Listens to nothing."""

    def note(self, text: str) -> None:
        """Drop the sentence."""

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Drop the event."""

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Do the work without telling."""
        yield lambda done: None
