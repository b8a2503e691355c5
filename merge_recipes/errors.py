"""Base class of all errors meant for users, and the errors of recipes and locks.

    HubmergeError             an error meant for users; the tool's own subclasses are in `hubmerge.errors`
    └── RecipeError           one or more problems, each with file, line, column and key path; exit status 2
        ├── RecipeFileError       the file is missing, a folder, too large or not UTF-8
        ├── RecipeSyntaxError     the text is not YAML, or uses YAML that the recipe language excludes
        ├── InvalidReferenceError a reference to a model or a dataset that cannot be parsed
        └── LockError             a lock that cannot be read, or that belongs to another recipe

All problems of a file and of the files it includes are reported together, in `RecipeError.problems`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

MAX_PRINTED_PROBLEMS = 40
MAX_SHOWN_CHARACTERS = 60
MAX_SHOWN_NAMES = 40
MAX_COMPARED_NAMES = 200

KeyPath = tuple[str | int, ...]


def key_text(path: KeyPath) -> str:
    """Return a key path as text: `models[1].parameters.alpha`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text if len(text) <= 4 * MAX_SHOWN_CHARACTERS else text[: 4 * MAX_SHOWN_CHARACTERS] + "..."


def format_value(value: object) -> str:
    """Return a value for a message: text in quotes, containers by kind, long values cut."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + "..."


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that is most similar to `word`, or None if no name is similar."""
    by_lower = {name.lower(): name for name in names}
    if len(word) > MAX_SHOWN_CHARACTERS or len(by_lower) > MAX_COMPARED_NAMES:
        return None
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """Return "; did you mean alpha?" for a similar name, else the list of names, else an empty text."""
    known = sorted(names)
    match = nearest(word, known)
    if match is not None:
        return f"; did you mean {match}?"
    more = ", ..." if len(known) > MAX_SHOWN_NAMES else ""
    return f"; expected one of: {', '.join(known[:MAX_SHOWN_NAMES])}{more}" if known else ""


@dataclass(frozen=True)
class Problem:
    """One mistake in a file: its place (line and column counted from 1), its key, the cause and a hint."""

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


def without_repeats(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems without those that say the same about one place."""
    return list({(one.file, one.line, one.column, one.message): one for one in problems}.values())


@dataclass(frozen=True)
class ErrorContext:
    """The place of an error. Fields that do not apply are None."""

    file: str | None = None
    line: int | None = None
    column: int | None = None
    repo: str | None = None
    commit: str | None = None
    tensor: str | None = None


class HubmergeError(Exception):
    """An error meant for users: a message with the cause and the place, and a hint with a way out.

    Keyword arguments other than `hint` are the fields of `ErrorContext`.

    Attributes:
        code: identifies the kind of error in JSON output; stable across versions.
        exit_code: the exit status of the command line.
    """

    code: ClassVar[str] = "error"
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str | None = None, **place: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = ErrorContext(**place)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values: code, message, hint, exit_code and the fields of its context."""
        place = {name: value for name, value in asdict(self.context).items() if value is not None}
        return {"code": self.code, "message": self.message, "hint": self.hint, "exit_code": self.exit_code, **place}


class RecipeError(HubmergeError):
    """A recipe that cannot be read or is inconsistent; `problems` lists everything found."""

    code = "recipe"
    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        found = (problems,) if isinstance(problems, Problem) else tuple(problems)
        self.problems = tuple(
            sorted(found, key=lambda problem: (problem.file or "", problem.line or 0, problem.column or 0))
        )
        first = self.problems[0] if self.problems else Problem("")
        super().__init__(self._text(), file=first.file, line=first.line, column=first.column)

    def _text(self) -> str:
        lines = [str(problem) for problem in self.problems[:MAX_PRINTED_PROBLEMS]]
        if len(self.problems) > MAX_PRINTED_PROBLEMS:
            lines.append(f"... and {len(self.problems) - MAX_PRINTED_PROBLEMS} more problems")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values, with every problem under `problems`."""
        return {**super().to_dict(), "problems": [asdict(problem) for problem in self.problems]}

    def __reduce__(self) -> tuple[type[RecipeError], tuple[tuple[Problem, ...]]]:
        return type(self), (self.problems,)


class RecipeFileError(RecipeError):
    """A file that is missing, a folder, too large, or not UTF-8 text."""

    code = "recipe-file"


class RecipeSyntaxError(RecipeError):
    """A text that is not YAML, or uses YAML that the recipe language excludes."""

    code = "recipe-syntax"


class InvalidReferenceError(RecipeError, ValueError):
    """A reference to a model or a dataset that cannot be parsed."""

    code = "reference"

    def __init__(self, problems: Problem | Sequence[Problem] | str, hint: str | None = None) -> None:
        super().__init__(Problem(problems, hint) if isinstance(problems, str) else problems)


class LockError(RecipeError):
    """A lock that cannot be read, or that belongs to another recipe."""

    code = "lock"
