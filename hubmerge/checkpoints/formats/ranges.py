"""Ranges of bytes in a file: pairs (begin, end), the end not included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]


def merge_ranges(ranges: Iterable[Range], gap: int = 0) -> tuple[Range, ...]:
    """Return the ranges in ascending order, with those merged that touch or are at most `gap` bytes apart.

    >>> merge_ranges([(8, 9), (0, 3), (3, 5)])
    ((0, 5), (8, 9))
    """
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return tuple(found)


def missing_ranges(requested: Iterable[Range], present: Sequence[Range]) -> tuple[Range, ...]:
    """Return the parts of `requested` that are not in `present`.

    Args:
        requested: any ranges.
        present: ranges as `merge_ranges` returns them.

    >>> missing_ranges([(0, 10)], [(2, 3), (5, 6)])
    ((0, 2), (3, 5), (6, 10))
    """
    found: list[Range] = []
    for requested_begin, end in merge_ranges(requested):
        begin = requested_begin
        for present_begin, present_end in present:
            if present_end <= begin or present_begin >= end:
                continue
            if present_begin > begin:
                found.append((begin, present_begin))
            begin = present_end
        if begin < end:
            found.append((begin, end))
    return tuple(found)


def split_ranges(ranges: Iterable[Range], most: int, gap: int = 0) -> list[Range]:
    """Return the ranges as pieces of at most `most` bytes, after those at most `gap` bytes apart are merged.

    >>> split_ranges([(0, 5), (6, 9)], most=6, gap=1)
    [(0, 6), (6, 9)]
    """
    return [
        (place, min(place + most, end)) for begin, end in merge_ranges(ranges, gap) for place in range(begin, end, most)
    ]
