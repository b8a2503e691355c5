"""Section of the page about what each entry gives to the merge."""

from __future__ import annotations

from dataclasses import dataclass

from hubmerge.report.accuracy import percent
from hubmerge.report_page.markup import Cell, number, section, table, text


@dataclass(frozen=True)
class LeftOutEntry:
    """What one entry gives to the merge.

    Attributes:
        name: the name of the entry.
        others: the change of the mean score on the tasks of the others; negative if the entry hurts them.
        own: the change on the entry's own tasks.
        norm: the norm of its task vector.
        cosine: the mean cosine with the other task vectors.
        flags: what is wrong with the entry, one text each.
    """

    name: str
    others: float | None = None
    own: float | None = None
    norm: float | None = None
    cosine: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """What each entry gives to the merge, and how the merges without an entry were made."""

    entries: tuple[LeftOutEntry, ...]
    how: str


def left_out_section(found: LeftOut | None) -> str:
    """Return the section, nothing if no entry was left out."""
    if found is None or not found.entries:
        return ""
    head = ["entry", "gives others", "gives own", "norm", "mean cosine", "warnings"]
    caption = f"Score of the merge minus that of the merge without the entry, in points ({found.how})"
    return section("leave-one-out", "What each entry gives", table(head, map(_row, found.entries), caption))


def _row(one: LeftOutEntry) -> list[Cell]:
    values = [Cell(percent(value, "+"), value) for value in (one.others, one.own)]
    return [Cell(text(one.name)), *values, number(one.norm, 4), number(one.cosine), Cell(text("; ".join(one.flags)))]
