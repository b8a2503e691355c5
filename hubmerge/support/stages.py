"""Stages of work that are open now, and the lines that show them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from hubmerge.support.redaction import for_terminal
from hubmerge.support.text import elided, readable, readable_seconds

BYTES = "bytes"
"""The unit whose amounts are shown as sizes."""

BAR_WIDTH = 12
WIDE_COLUMNS = 72
"""Columns from which a line has a bar."""

_LEAST_TITLE = 12
_LEAST_ITEM = 10
_SHOWN_LEFT_SECONDS = 2


@dataclass(eq=False)
class OpenStage:
    """A stage of work: what, how much of it is done, and since when.

    Attributes:
        title: the work, in words.
        total: the amount of work, None if it is not known.
        unit: the unit of the amounts.
        began: the time of the start, on the monotonic clock.
        done: the amount that is done.
        item: the piece of work that began last, such as the name of a tensor.
    """

    title: str
    total: float | None = None
    unit: str = ""
    began: float = field(default_factory=time.monotonic)
    done: float = 0.0
    item: str = ""

    def __call__(self, amount: float) -> None:
        """Count work that was just done."""
        self.done += amount

    def show(self, item: str) -> None:
        """Show the piece of work that begins."""
        self.item = item

    @property
    def amount(self) -> str:
        """The finished part, such as "12/199 tensors"; empty if the total is not known and nothing is counted."""
        done = self.done if self.total is None else min(self.done, self.total)
        if self.unit == BYTES:
            shown = readable(done)
            return (f"{shown} of {readable(self.total)}" if self.total else shown) if self.total or done else ""
        if self.total:
            return f"{done:.0f}/{self.total:.0f} {self.unit}".rstrip()
        return f"{done:.0f} {self.unit}".rstrip() if done else ""

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start."""
        return max(0.0, now - self.began)

    def left(self, now: float) -> float | None:
        """Return the seconds that the rest takes at the mean speed so far, None if that is not known."""
        if not self.total or not 0 < self.done < self.total:
            return None
        return self.elapsed(now) * (self.total - self.done) / self.done

    def times(self, now: float) -> str:
        """Return the time left in words, else the time since the start."""
        left = self.left(now)
        if left is not None and left >= _SHOWN_LEFT_SECONDS:
            return f"{readable_seconds(left)} left"
        return readable_seconds(self.elapsed(now)) if self.elapsed(now) >= 1 else ""

    def line(self, width: int, now: float, *, bar: tuple[str, str] = ("#", "-"), indent: str = "") -> str:
        """Return one line of at most `width` columns.

        Args:
            width: the number of columns.
            now: the time, on the monotonic clock.
            bar: the characters for the finished part and the rest of a bar.
            indent: the start of the line.
        """
        facts = [fact for fact in (self.amount, self.times(now)) if fact]
        if self.total and width >= WIDE_COLUMNS:
            full = round(BAR_WIDTH * min(1.0, self.done / self.total))
            facts.insert(0, bar[0] * full + bar[1] * (BAR_WIDTH - full))
        while facts and width - sum(len(fact) + 2 for fact in facts) - len(indent) < _LEAST_TITLE:
            facts.pop()
        room = width - sum(len(fact) + 2 for fact in facts) - len(indent)
        text = "  ".join([indent + elided(for_terminal(self.title), room), *facts])
        room = width - len(text) - 2
        line = f"{text}  {elided(for_terminal(self.item), room)}" if self.item and room >= _LEAST_ITEM else text
        return line[:width]


class Stages:
    """The open stages, in the order of their start. Several threads may open and close them."""

    def __init__(self) -> None:
        """Begin without a stage."""
        self._lock = threading.Lock()
        self._open: list[OpenStage] = []

    def add(self, stage: OpenStage) -> None:
        """Open a stage."""
        with self._lock:
            self._open.append(stage)

    def remove(self, stage: OpenStage) -> bool:
        """Close a stage, and return True if no other one is open."""
        with self._lock:
            self._open.remove(stage)
            return not self._open

    def open(self) -> tuple[OpenStage, ...]:
        """Return the open stages."""
        with self._lock:
            return tuple(self._open)

    def lines(self, width: int, most: int, *, bar: tuple[str, str] = ("#", "-")) -> list[str]:
        """Return one line for each stage: the oldest, which contains the others, then the newest ones."""
        now, stages = time.monotonic(), self.open()
        if not stages:
            return []
        first, others = stages[0], stages[1:]
        shown = others[-(most - 1) :] if len(others) < most else others[-(most - 2) :]
        lines = [first.line(width, now, bar=bar), *(one.line(width, now, bar=bar, indent="  ") for one in shown)]
        if len(others) > len(shown):
            lines.append(f"  and {len(others) - len(shown)} more"[:width])
        return lines

    def one_line(self, width: int) -> str:
        """Return the oldest and the newest stage on one line."""
        now, stages = time.monotonic(), self.open()
        if not stages:
            return ""
        if len(stages) == 1:
            return stages[0].line(width, now)
        first = ": ".join(filter(None, (stages[0].title, stages[0].amount)))
        first = elided(for_terminal(first), width // 3)
        return f"{first}, {stages[-1].line(width - len(first) - 2, now)}"[:width]
