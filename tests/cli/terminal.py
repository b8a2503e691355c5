"""A pseudo-terminal: what a program wrote to it, and what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence

_ESCAPE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


class Screen:
    """The lines of a terminal of a given width, after a text was written to it.

    Attributes:
        lines: the lines.
        cursor: False if the cursor is hidden.
        wrapped: the number of lines that were longer than the terminal is wide.
        tallest: the most lines that one redrawing went up.
        styles: the codes of styles that were used.
    """

    def __init__(self, text: str, columns: int) -> None:
        self.lines, self.cursor, self.wrapped, self.tallest = [""], True, 0, 0
        self.styles: set[str] = set()
        self._row, self._column, self._width = 0, 0, columns
        while text:
            escape = _ESCAPE.match(text)
            if escape:
                self._control(*escape.groups())
                text = text[escape.end() :]
            else:
                self._write(text[0])
                text = text[1:]

    def _control(self, private: str, value: str, letter: str) -> None:
        if letter == "A":
            self._row -= int(value or 1)
            assert self._row >= 0
            self.tallest = max(self.tallest, len(self.lines) - self._row)
        elif letter == "K":
            self.lines[self._row] = ""
        elif letter == "m":
            self.styles.add(value)
        elif private and value == "25":
            self.cursor = letter == "h"

    def _write(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._row, self._column = self._row + 1, 0
            self.lines += [""] * (self._row + 1 - len(self.lines))
        else:
            before = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = before[: self._column] + character + before[self._column + 1 :]
            self._column += 1
            self.wrapped += self._column == self._width + 1

    @property
    def text(self) -> str:
        """The text that is left, without blank lines at the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip()


class Terminal:
    """The other end of a pseudo-terminal, which collects what is written to it."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self._content = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 1 << 16):
                self._content += data

    @property
    def content(self) -> str:
        """Everything that was written so far."""
        return self._content.decode()

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until a text was written."""
        end = time.monotonic() + seconds
        while text not in self.content:
            assert time.monotonic() < end, (text, self.content)
            time.sleep(0.02)

    def close(self) -> Screen:
        """Close the terminal and return what it shows."""
        os.close(self.slave)
        self._thread.join(60)
        os.close(self.master)
        return Screen(self.content, self.columns)


@contextlib.contextmanager
def as_terminal(columns: int, set_variable: Callable[[str, str], None]) -> Iterator[Terminal]:
    """Let this process write to a pseudo-terminal in the block; a test closes it afterwards.

    Args:
        columns: its width.
        set_variable: function that sets an environment variable for the test.
    """
    set_variable("TERM", "xterm-256color")
    set_variable("COLUMNS", str(columns))
    for name in ("CI", "NO_COLOR"):
        set_variable(name, "")
    terminal = Terminal(columns)
    streams = sys.stdout, sys.stderr
    with os.fdopen(os.dup(terminal.slave), "w", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        try:
            yield terminal
        finally:
            sys.stdout, sys.stderr = streams


def start_in(terminal: Terminal, arguments: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
    """Start a program whose terminal this is."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "COLUMNS"}}
    variables, end = {**kept, "TERM": "xterm-256color", **environment}, terminal.slave
    return subprocess.Popen([*arguments], env=variables, start_new_session=True, stdin=end, stdout=end, stderr=end)
