"""Code blocks of README, the files beside it and the pages under docs/, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SHELLS = ("bash", "sh", "console")
OUTPUTS = ("", "text")
"""Languages of blocks that show output or a drawing."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One code block: its document, the line of its first line, its language and its text."""

    document: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Document and line, for messages and names of tests."""
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Line:
    """One command of a block.

    Attributes:
        place: document and line of the block.
        text: the command as it is written, without a comment at its end.
        words: its words, without assignments before it and without redirections.
        output: the file that its output goes to, None for the terminal.
    """

    place: str
    text: str
    words: tuple[str, ...]
    output: str | None = None


def blocks(*languages: str) -> list[Block]:
    """Return the blocks of all documents in some languages, of all languages if none is named."""
    found = []
    for document in DOCUMENTS:
        text, name = document.read_text(encoding="utf-8"), document.relative_to(ROOT).as_posix()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            if not languages or match[1] in languages:
                found.append(Block(name, line, match[1], match[2]))
    return found


def command_lines() -> list[Line]:
    """Return the commands of all blocks for a shell; of a console those after the prompt."""
    return [line for block in blocks(*SHELLS) for line in _lines(block)]


def _lines(block: Block) -> Iterator[Line]:
    for text in block.text.replace("\\\n", " ").splitlines():
        if block.language == "console":
            if not text.startswith("$ "):
                continue
            text = text[2:]
        words = shlex.split(text, comments=True)
        if not words:
            continue
        written = " ".join(text.split("  #")[0].split())
        output = words[words.index(">") + 1] if ">" in words else None
        end = words.index(">") if ">" in words else len(words)
        words = [word for word in words[:end] if word != "&"]
        while re.fullmatch(r"[A-Z_0-9]+=\S*", words[0]):
            words = words[1:]
        yield Line(block.place, written, tuple(words), output)
