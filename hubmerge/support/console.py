"""Progress on a terminal, in a notebook or in a log file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hubmerge.support.progress import Advance
from hubmerge.support.redaction import for_terminal


class RichConsole:
    """Sentences, and progress bars where they can be drawn: in a terminal or a notebook.

    Elsewhere each stage prints one line when it ends, which keeps a log file readable. Stages of several threads are
    drawn below each other.
    """

    def __init__(self, *, bars_only: bool = False) -> None:
        """Create a console that writes to standard output.

        Args:
            bars_only: draw bars and print nothing else.
        """
        self._console = Console(highlight=False, soft_wrap=True)
        self._bars_only = bars_only
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._open = 0

    @property
    def draws_bars(self) -> bool:
        """True in a terminal and in a notebook."""
        return self._console.is_terminal or self._console.is_jupyter

    def note(self, text: str) -> None:
        """Print a sentence."""
        if not self._bars_only:
            self._console.print(for_terminal(text), markup=False)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Ignore the event: it is for programs."""

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Draw a bar while the stage lasts, and print its seconds when it ends."""
        started = time.monotonic()
        if not self.draws_bars:
            yield lambda _done: None
        else:
            bars = self._enter()
            task = bars.add_task(for_terminal(title), total=total, unit=unit)
            try:
                yield lambda done: bars.advance(task, done)
            finally:
                bars.remove_task(task)
                self._leave(bars)
        self.note(f"  {title} ({time.monotonic() - started:.1f} s)")

    def _enter(self) -> Bars:
        with self._lock:
            if self._bars is None:
                columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), _Amount())
                self._bars = Bars(*columns, TimeElapsedColumn(), console=self._console, transient=True)
                self._bars.start()
            self._open += 1
            return self._bars

    def _leave(self, bars: Bars) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                bars.stop()
                self._bars = None


class _Amount(TextColumn):
    """The finished part of a stage, such as `12/199`; empty where the total is unknown."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.total else "")
