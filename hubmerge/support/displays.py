"""Ways to show the open stages of work: live in a terminal, on one line of a notebook, by lines in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hubmerge.support import interrupts

REFRESHES_PER_SECOND = 4
NOTEBOOK_SECONDS = 0.5
NOTEBOOK_COLUMNS = 79
HEARTBEAT_SECONDS = 8.0
"""Longest time without a line in a log file while a stage is open."""

HEARTBEAT_COLUMNS = 120
_SHOW_CURSOR = "\x1b[?25h\n"


class Display:
    """Something that shows the open stages until it is stopped."""

    def start(self) -> None:
        """Begin to show."""

    def clear(self) -> None:
        """Make room for a printed line."""

    def stop(self) -> None:
        """Show nothing any more."""


class LiveDisplay(Display):
    """A few lines at the end of a terminal, redrawn in place. Everything else that is printed appears above."""

    def __init__(self, lines: Callable[[int], list[str]], console: Console) -> None:
        """Prepare a display.

        Args:
            lines: function that returns the lines to show for a number of columns.
            console: the console of the terminal.
        """
        self._lines, self._console = lines, console
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._stack = ExitStack()

    def start(self) -> None:
        """Begin to show."""
        self._stack.enter_context(interrupts.killed_on_exit(self._restore))
        self._live.start()

    def stop(self) -> None:
        """Show nothing any more."""
        interrupts.settle()  # the line of a signal appears above the display, not in it
        self._live.stop()
        self._stack.close()

    def _render(self) -> Text:
        width = max(1, self._console.width - 1)
        lines = [Text(line) for line in self._lines(width)]
        for line in lines:
            line.truncate(width)
        for line in lines[:1]:
            line.stylize("bold")
        return Text("\n", no_wrap=True, overflow="crop").join(lines)

    def _restore(self) -> None:
        """Show the cursor again in a process that ends at once."""
        with suppress(OSError, ValueError):
            sys.__stdout__.write(_SHOW_CURSOR)  # type: ignore[union-attr]
            sys.__stdout__.flush()  # type: ignore[union-attr]


class TickingDisplay(Display):
    """A thread that shows the stages from time to time."""

    seconds: float

    def __init__(self) -> None:
        """Prepare the thread."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin to show."""
        self._thread.start()

    def stop(self) -> None:
        """Show nothing any more."""
        self._stopped.set()

    def tick(self) -> None:
        """Show the stages."""

    def _run(self) -> None:
        while not self._stopped.wait(self.seconds):
            self.tick()


class NotebookBar(TickingDisplay):
    """One line of text, which is overwritten."""

    seconds = NOTEBOOK_SECONDS

    def __init__(self, line: Callable[[int], str]) -> None:
        """Prepare a bar.

        Args:
            line: function that returns the line to show for a number of columns.
        """
        super().__init__()
        self._line, self._written = line, 0
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Write the line again."""
        with self._lock:
            if not self._stopped.is_set():
                line = self._line(NOTEBOOK_COLUMNS)
                self._write(f"\r{line.ljust(self._written)}")
                self._written = len(line)

    def clear(self) -> None:
        """Remove the line."""
        with self._lock:
            if self._written:
                self._write(f"\r{' ' * self._written}\r")
                self._written = 0

    def stop(self) -> None:
        """Remove the line."""
        super().stop()
        self.clear()

    @staticmethod
    def _write(text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stdout.write(text)
            sys.stdout.flush()


class Heartbeat(TickingDisplay):
    """A line now and then if nothing else was printed."""

    seconds = HEARTBEAT_SECONDS / 4

    def __init__(self, lines: Callable[[int], list[str]], note: Callable[[str], None]) -> None:
        """Prepare the lines.

        Args:
            lines: function that returns the lines of the open stages for a number of columns.
            note: function that prints a line.
        """
        super().__init__()
        self._lines, self._note = lines, note
        self._last = time.monotonic()

    def clear(self) -> None:
        """Wait again: a line is printed."""
        self._last = time.monotonic()

    def tick(self) -> None:
        """Print a line if it is time."""
        if time.monotonic() - self._last >= HEARTBEAT_SECONDS - self.seconds:
            for line in self._lines(HEARTBEAT_COLUMNS)[-1:]:
                self._note(f"  ... {line.strip()}")
            self._last = time.monotonic()
