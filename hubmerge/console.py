"""What the command line shows: progress bars for a person, bare facts when quiet, JSON lines for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import DownloadColumn as BytesColumn
from rich.progress import Progress as Bars

from hubmerge.progress import Advance, SilentProgress


class RichConsole:
    """Bars on a terminal; on anything else one line when a stage ends, so that a log stays readable."""

    def __init__(self) -> None:
        self._console = Console(stderr=False, highlight=False, soft_wrap=True)

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
            self.note(f"  {title} ({time.monotonic() - started:.1f} s)")
            return
        amount = [BytesColumn()] if unit == "bytes" else [MofNCompleteColumn()] if total else []
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), *amount]
        with Bars(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.advance(task, done)
        self.note(f"  {title} ({time.monotonic() - started:.1f} s)")


class JsonLines(SilentProgress):
    """One JSON object a line on standard output: notes, stages and steps, each with its `event`."""

    def note(self, text: str) -> None:
        """Write a note."""
        self.event("note", {"text": text})

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Write an event."""
        sys.stdout.write(json.dumps({"event": name, **data}, ensure_ascii=False, sort_keys=False) + "\n")
        sys.stdout.flush()

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Write the stage when it ends, with its seconds."""
        started = time.monotonic()
        yield lambda done: None
        self.event("stage", {"title": title, "seconds": round(time.monotonic() - started, 3)})
