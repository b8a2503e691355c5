"""Outlines of the marks of points."""

from __future__ import annotations

from collections.abc import Callable, Mapping

_CROSS = "l2.5 -2.5l1.5 1.5l-2.5 2.5l2.5 2.5l-1.5 1.5l-2.5 -2.5l-2.5 2.5l-1.5 -1.5l2.5 -2.5l-2.5 -2.5l1.5 -1.5z"
_OUTLINES: Mapping[str, Callable[[float, float], str]] = {
    "o": lambda x, y: f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
    "s": lambda x, y: f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z",
    "^": lambda x, y: f"M{x:.1f} {y - 4:.1f}l4 7h-8z",
    "D": lambda x, y: f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z",
    "v": lambda x, y: f"M{x:.1f} {y + 4:.1f}l4 -7h-8z",
    "X": lambda x, y: f"M{x:.1f} {y - 1.5:.1f}{_CROSS}",
    "P": lambda x, y: f"M{x - 1:.1f} {y - 4:.1f}h2v3h3v2h-3v3h-2v-3h-3v-2h3z",
}


def mark_path(mark: str, x: float, y: float) -> str:
    """Return the outline of a mark around its middle.

    Args:
        mark: the mark, as matplotlib names it.
        x: the middle, from the left.
        y: the middle, from the top.

    >>> mark_path("s", 10, 5)
    'M7.0 2.0h6v6h-6z'
    """
    return _OUTLINES[mark](x, y)
