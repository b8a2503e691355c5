"""Axes of charts: where values lie, and where the numbers stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.report_page.markup import tag, text

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34


@dataclass(frozen=True)
class Scale:
    """Bounds of a chart, from left to right and from bottom to top."""

    across: tuple[float, float]
    values: tuple[float, float]

    @classmethod
    def of(cls, across: Sequence[float], values: Sequence[float]) -> Scale:
        """Return the bounds of points, with a margin for the values."""
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
        return cls((min(across), max(across)), (low - margin, high + margin))

    def x(self, place: float) -> float:
        """Return the distance of a place from the left edge."""
        first, last = self.across
        return LEFT + (WIDTH - LEFT - RIGHT) * ((place - first) / (last - first) if last > first else 0.5)

    def y(self, value: float) -> float:
        """Return the distance of a value from the upper edge."""
        low, high = self.values
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    def across_ticks(self) -> list[float]:
        """Return round numbers for the horizontal axis."""
        first, last = self.across
        return round_ticks(first, last) if last > first else [first]


def value_axis(scale: Scale, label: str) -> list[str]:
    """Return the lines and numbers of the vertical axis, and what it shows."""
    found = []
    for value in round_ticks(*scale.values):
        y = scale.y(value)
        found.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        found.append(tag("text", f"{value:g}", class_="y", x=f"{LEFT - 6}", y=f"{y + 4:.1f}"))
    middle = f"{HEIGHT / 2:.0f}"
    return [*found, tag("text", text(label), class_="label", x="12", y=middle, transform=f"rotate(-90 12 {middle})")]


def whole_ticks(first: int, last: int, most: int = 12) -> list[int]:
    """Return whole numbers for the axis of the steps: the first one, then every second, fifth, tenth ... one.

    >>> whole_ticks(1, 8)
    [1, 2, 3, 4, 5, 6, 7, 8]
    >>> whole_ticks(1, 40)
    [1, 5, 10, 15, 20, 25, 30, 35, 40]
    """
    width = 1
    for width in (factor * 10**power for power in range(6) for factor in (1, 2, 5)):
        if (last - first) / width <= most:
            break
    return [first, *(step for step in range(width * (first // width + 1), last + 1, width))]


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers between two bounds.

    >>> round_ticks(0.52, 0.91)
    [0.6, 0.7, 0.8, 0.9]
    """
    rough = (high - low) / about
    unit = 10 ** math.floor(math.log10(rough))
    width = unit * next(factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first = math.ceil(low / width)
    return [round(width * i, 12) for i in range(first, math.floor(high / width) + 1)]
