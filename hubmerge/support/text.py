"""How commits are told to people."""

from __future__ import annotations

SHOWN_DIGITS = 12


def short_commit(commit: str) -> str:
    """Return the first twelve hex digits of a commit, or of a digest `sha256:...` with what stands in front.

    >>> short_commit("sha256:0123456789abcdef0123456789abcdef")
    'sha256:0123456789ab'
    """
    algorithm, colon, digits = commit.rpartition(":")
    return f"{algorithm}{colon}{digits[:SHOWN_DIGITS]}"


def readable(nbytes: float) -> str:
    """Return a size in bytes as people write it: 349.9 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
