"""Run a command in a pseudo-terminal and write what it leaves there as an SVG picture.

docs/terminal.svg is made by `python benchmarks/terminal.py docs/terminal.svg "hubmerge run recipe.yaml" hubmerge demo`.
"""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 104
AFTER = "The embedded Hub has stopped"
"""What `hubmerge demo` says after the run."""


def run(command: list[str]) -> str:
    """Return what a command wrote to a terminal."""
    parts: list[bytes] = []

    def read(terminal: int) -> bytes:
        parts.append(os.read(terminal, 1 << 16))
        return parts[-1]

    os.environ |= {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    pty.spawn(command, read)
    return b"".join(parts).decode(errors="replace")


def left_over(written: str) -> str:
    """Return the lines that are left after all redrawing, with their styles; those after the last prompt."""
    lines: list[str] = [""]
    row = 0
    for piece in re.split(r"(\n|\r|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh])", written):
        if piece == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece.endswith("A") and piece.startswith("\x1b["):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece != "\r" and not piece.startswith("\x1b[?25"):
            lines[row] += piece
    begin = max((number + 1 for number, line in enumerate(lines) if line.startswith("$ ")), default=0)
    return "\n".join(lines[begin:]).strip("\n")


def main(target: Path, title: str, command: list[str]) -> None:
    """Run a command and write the picture."""
    console = Console(record=True, width=COLUMNS, file=Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    console.print(Text(f"$ {title}", style="bold"))
    shown = left_over(run(command)).partition(AFTER)[0].strip("\n")
    console.print(Text.from_ansi(re.sub(r"\S+/quickstart\.yaml", "recipe.yaml", shown)))
    target.write_text(console.export_svg(title=title), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
