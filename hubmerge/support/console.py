"""Progress on a terminal, in a notebook or in a log file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from hubmerge.support.displays import Display, Heartbeat, LiveDisplay, NotebookBar
from hubmerge.support.progress import Advance, waits
from hubmerge.support.redaction import for_terminal
from hubmerge.support.stages import OpenStage, Stages
from hubmerge.support.text import elided

Mode = Literal["live", "notebook", "lines"]

MOST_LINES = 6
"""Lines of the live display at most."""

DELAY_SECONDS = 0.5
"""Time after which a command without stages is shown."""

_WARNING = "warning"
_OFF = frozenset({"", "0", "false", "no"})


def output_mode(console: Console) -> Mode:
    """Return how progress is shown: live in a terminal, as a bar in a notebook, else by lines.

    Lines are printed too if NO_COLOR or CI is set, or if TERM is dumb.
    """
    if console.is_jupyter:
        return "notebook"
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("CI", "").lower() not in _OFF
    return "live" if console.is_terminal and not console.is_dumb_terminal and not plain else "lines"


class RichConsole:
    """Sentences, and the stages of work: a live display in a terminal, a text bar in a notebook, else lines.

    The live display is below the sentences and leaves nothing behind. Where there is none, each stage prints one line
    when it ends, and a long one says every few seconds how far it is.
    """

    def __init__(self, *, bars_only: bool = False, title: str | None = None) -> None:
        """Create a console that writes to standard output.

        Args:
            bars_only: show stages and print nothing else.
            title: the work that is shown while no stage is open, until `close` is called; None for nothing.
        """
        found = Console(highlight=False, soft_wrap=True)
        self.mode: Mode = output_mode(found)
        # Rich would write HTML in a notebook.
        notebook = self.mode == "notebook"
        self._console = Console(highlight=False, soft_wrap=True, force_jupyter=False) if notebook else found
        self._bars_only = bars_only
        self._stages = Stages()
        self._lock = threading.RLock()
        self._shown: Display | None = None
        self._whole: OpenStage | None = None
        self._timer: threading.Timer | None = None
        if title is not None:
            self._title = title
            self._whole = OpenStage(f"{title}: load libraries")
            self._timer = threading.Timer(DELAY_SECONDS, self._begin)
            self._timer.daemon = True
            self._timer.start()

    @property
    def draws_bars(self) -> bool:
        """True in a terminal and in a notebook."""
        return self.mode != "lines"

    @property
    def is_colored(self) -> bool:
        """True if what is printed may have colors."""
        return self.mode == "live" and self._console.color_system is not None

    def note(self, text: str) -> None:
        """Print a sentence. The first word of a warning is in color on a terminal."""
        if self._bars_only:
            return
        line = Text(for_terminal(text))
        if self.is_colored and text.startswith(_WARNING):
            line.stylize("bold yellow", 0, len(_WARNING))
        self._print(line)

    def note_styled(self, text: Text) -> None:
        """Print text with styles, which only a terminal shows."""
        if not self._bars_only:
            self._print(text)

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """Ignore the event: it is for programs."""

    @contextmanager
    def stage(self, title: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Show the stage while it lasts; where nothing is live, print its seconds when it ends."""
        opened = OpenStage(title, total, unit)
        self._stages.add(opened)
        self._whole_is_known()
        self._begin()
        try:
            yield opened
        finally:
            if self._stages.remove(opened):
                self._end()
        if self.mode == "lines":
            self.note(f"  {title} ({time.monotonic() - opened.began:.1f} s)")

    def close(self) -> None:
        """End the display."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._whole = None
        self._end()

    def lines(self, width: int) -> list[str]:
        """Return the lines of the display now; what is waited for comes last."""
        return [*self._stage_lines(width), *(f"  {elided(for_terminal(text), width - 2)}" for text in waits())]

    def _stage_lines(self, width: int) -> list[str]:
        shown = self._stages.lines(width, MOST_LINES, bar=self._bar)
        if not shown and self._whole is not None:
            return [self._whole.line(width, time.monotonic())]
        return shown

    def _whole_is_known(self) -> None:
        """Name the command alone from the first stage on: its libraries are loaded."""
        with self._lock:
            if self._whole is not None:
                self._whole.title = self._title

    @property
    def _bar(self) -> tuple[str, str]:
        return ("━", "─") if (self._console.encoding or "").lower().startswith("utf") else ("#", "-")

    def _print(self, text: Text) -> None:
        with self._lock:
            if self._shown is not None:
                self._shown.clear()
            self._console.print(text)

    def _begin(self) -> None:
        with self._lock:
            if self._shown is None and (self._whole is not None or self._stages.open()):
                self._shown = self._new_display()
                self._shown.start()

    def _end(self) -> None:
        with self._lock:
            if self._whole is None and not self._stages.open() and self._shown is not None:
                shown, self._shown = self._shown, None
                shown.stop()

    def _new_display(self) -> Display:
        if self.mode == "live":
            return LiveDisplay(self.lines, self._console)
        if self.mode == "notebook":
            return NotebookBar(self._stages.one_line)
        return Heartbeat(self.lines, self.note)
