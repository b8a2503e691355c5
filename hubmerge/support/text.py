"""Text shown to people: commit hashes, sizes, counts and lists of names."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

SHOWN_DIGITS = 12


def short_commit(commit: str) -> str:
    """Return the first twelve hex digits of a commit, or of a digest with its `sha256:` in front.

    >>> short_commit("sha256:0123456789abcdef0123456789abcdef")
    'sha256:0123456789ab'
    """
    algorithm, colon, digits = commit.rpartition(":")
    return f"{algorithm}{colon}{digits[:SHOWN_DIGITS]}"


def readable(nbytes: float) -> str:
    """Return a size in bytes with a unit: "349.9 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def readable_seconds(seconds: float) -> str:
    """Return a duration with its units: "45 s", "12 min", "3 h 20 min".

    >>> readable_seconds(0.2), readable_seconds(95), readable_seconds(12_000), readable_seconds(200_000)
    ('1 s', '1 min 35 s', '3 h 20 min', '2 d 7 h')
    """
    whole = max(1, round(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if whole >= size)
    parts = []
    for unit, size in units[first : first + 2]:
        number, whole = divmod(whole, size)
        parts += [f"{number} {unit}"] if number else []
    return " ".join(parts)


def elided(text: str, most: int) -> str:
    """Return a text of at most so many characters: dots replace its middle.

    >>> elided("someone/a-very-long-name", 15)
    'someon...g-name'
    """
    if len(text) <= most:
        return text
    end = (most - 3) // 2 if most > 3 else 0
    return f"{text[: most - 3 - end]}...{text[len(text) - end :]}" if most > 3 else text[:most]


def in_shell(word: object) -> str:
    """Return a file name or another word as it is typed in a shell, for commands that are printed."""
    return shlex.quote(str(word))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 checkpoint", "3 checkpoints".

    Args:
        number: the number.
        noun: the singular.
        plural: the plural, if it is not the singular with an "s".

    >>> counted(1, "checkpoint"), counted(2, "query", "queries")
    ('1 checkpoint', '2 queries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names separated by commas, cut after `most` of them: the rest is counted.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def tensors_are(names: Sequence[str]) -> str:
    """Return the subject of a sentence about tensors, with its verb.

    Example:
        >>> tensors_are(["a"]), tensors_are(["a", "b", "c"])
        ("tensor 'a' is", "tensors 'a' and 2 more are")
    """
    more = len(names) - 1
    return f"tensors {names[0]!r} and {more} more are" if more else f"tensor {names[0]!r} is"
