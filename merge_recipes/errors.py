"""What can be wrong with a recipe or with its lock.

    RecipeError               one or more problems, each with file, line, column and key path; exit status 2
    ├── RecipeFileError       the file: missing, a folder, too large, not UTF-8
    ├── RecipeSyntaxError     the text: not YAML, or a part of YAML that the recipe language leaves out
    ├── InvalidReferenceError a reference to a model or a dataset that cannot be parsed
    └── LockError             a lock that cannot be read, or that belongs to another recipe

All problems of a file and of those it includes are told at once: `RecipeError.problems` holds them file by file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

MAX_PRINTED_PROBLEMS = 40
MAX_SHOWN_CHARACTERS = 60
MAX_SHOWN_NAMES = 40
MAX_COMPARED_NAMES = 200

KeyPath = tuple[str | int, ...]


def key_text(path: KeyPath) -> str:
    """Print a key path the way it is read: `models[1].parameters.alpha`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text if len(text) <= 4 * MAX_SHOWN_CHARACTERS else text[: 4 * MAX_SHOWN_CHARACTERS] + "..."


def shown(value: object) -> str:
    """Print a value inside a message: text in quotes, containers by kind, long values cut."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that `word` was most likely meant to be, or None if nothing is near."""
    by_lower = {name.lower(): name for name in names}
    if len(word) > MAX_SHOWN_CHARACTERS or len(by_lower) > MAX_COMPARED_NAMES:
        return None
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return `"; did you mean alpha?"`, or what is known when nothing is near, or an empty text."""
    known = sorted(names)
    match = nearest(word, known)
    if match is not None:
        return f"; did you mean {match}?"
    more = ", ..." if len(known) > MAX_SHOWN_NAMES else ""
    return f"; expected one of: {', '.join(known[:MAX_SHOWN_NAMES])}{more}" if known else ""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (1-based line and column), which key, what, and what to do."""

    message: str
    hint: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    key: str = ""

    def __str__(self) -> str:
        where = [str(part) for part in (self.file, self.line, self.column) if part is not None]
        parts = [part for part in (":".join(where), self.key, self.message) if part]
        return ": ".join(parts) + (f"\n  hint: {self.hint}" if self.hint else "")

    def in_file(self, file: str) -> Problem:
        """Return the same problem, told of `file`, unless it already names one."""
        return self if self.file is not None else replace(self, file=file)


class RecipeError(Exception):
    """A recipe that cannot be read, or that does not hold together; `problems` lists everything found."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.problems = tuple(
            sorted(found, key=lambda problem: (problem.file or "", problem.line or 0, problem.column or 0))
        )
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems[:MAX_PRINTED_PROBLEMS]]
        if len(self.problems) > MAX_PRINTED_PROBLEMS:
            lines.append(f"... and {len(self.problems) - MAX_PRINTED_PROBLEMS} more problems")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type[RecipeError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class RecipeFileError(RecipeError):
    """The file itself: missing, a folder, too large, or not UTF-8 text."""


class RecipeSyntaxError(RecipeError):
    """The text is not YAML, or uses a part of YAML that the recipe language leaves out."""


class InvalidReferenceError(RecipeError, ValueError):
    """A reference to a model or a dataset that cannot be parsed."""

    def __init__(self, problems: Problem | Sequence[Problem] | str, hint: str | None = None) -> None:
        super().__init__(Problem(problems, hint) if isinstance(problems, str) else problems)


class LockError(RecipeError):
    """A lock that cannot be read, or that belongs to another recipe."""
