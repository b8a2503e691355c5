"""Text shown to people: commit hashes, sizes, counts and lists of names."""

from __future__ import annotations

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
