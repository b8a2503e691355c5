"""Steps and tasks that cards, tables and pictures show: they stay readable, however long the stream is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

FIRST_SHOWN = 4
"""Number of first steps or tasks that are shown."""

LAST_SHOWN = 20
"""Number of last steps or tasks that are shown."""


def is_shown(number: int, last: int) -> bool:
    """Return True if cards and tables show this step or task of `last`.

    >>> [number for number in range(1, 31) if not is_shown(number, 30)]
    [5, 6, 7, 8, 9, 10]
    """
    return number <= FIRST_SHOWN or number > last - LAST_SHOWN


def shown(items: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return the items that are shown, in two parts with a gap between them; the second is empty without a gap.

    >>> shown([1, 2, 3])
    ([1, 2, 3], [])
    """
    if len(items) <= FIRST_SHOWN + LAST_SHOWN:
        return list(items), []
    return list(items[:FIRST_SHOWN]), list(items[-LAST_SHOWN:])
