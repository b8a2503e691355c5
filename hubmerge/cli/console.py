"""What the command line shows: progress bars for a person, bare facts when quiet, JSON lines for a program."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hubmerge.support.progress import Advance, SilentProgress


class RichConsole:
    """Bars on a terminal; on anything else one line when a stage ends, so that a log stays readable.

    Stages of several threads stand below each other in one display.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._open = 0

    def note(self, text: str) -> None:
        """Print a sentence."""
        self._console.print(text, markup=False)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Leave events to the JSON form."""

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Show a bar while the stage lasts and a line with its seconds when it ends."""
        started = time.monotonic()
        if not self._console.is_terminal:
            yield lambda done: None
        else:
            bars = self._enter()
            task = bars.add_task(title, total=total)
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
    """How much of a stage is done, where its size is known."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """`12/199`, or nothing."""
        return Text(f"{task.completed:.0f}/{task.total:.0f}" if task.total else "")


class JsonLines(SilentProgress):
    """One JSON object a line on standard output: notes, stages and steps, each with its `event`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def note(self, text: str) -> None:
        """Write a note."""
        self.event("note", {"text": text})

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Write an event."""
        line = json.dumps({"event": name, **data}, ensure_ascii=False) + "\n"
        with self._lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Write the stage when it ends, with its seconds."""
        started = time.monotonic()
        yield lambda done: None
        self.event("stage", {"title": title, "seconds": round(time.monotonic() - started, 3)})
