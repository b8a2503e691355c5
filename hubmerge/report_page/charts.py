"""Charts as SVG: lines over the steps, and maps of numbers. Values appear on hover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.report_page.markup import tag, text

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
DASHES = ("", "6 3", "2 3", "8 3 2 3")
COLORS = 7
"""Number of colors of lines in page.css; lines of one color differ in their dashes."""


@dataclass(frozen=True)
class Line:
    """One line: its name, and (step, value) of each point."""

    name: str
    points: tuple[tuple[int, float], ...]
    strong: bool = False


def line_chart(lines: Sequence[Line], label: str, *, unit: str = "") -> str:
    """Return a chart with one line for each series over whole steps, and its legend.

    Args:
        lines: the series; those without a point are left out.
        label: what the vertical axis shows.
        unit: the unit in the texts of the points.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    scale = _Scale.of(lines)
    parts = [*_grid(scale, label)]
    parts += [_drawn(line, i, scale, unit) for i, line in enumerate(lines)]
    names = ", ".join(line.name for line in lines)
    drawing = tag(
        "svg",
        "".join(parts),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{label}: {names}",
    )
    return tag("figure", drawing + _legend(lines))


@dataclass(frozen=True)
class _Scale:
    steps: tuple[int, int]
    values: tuple[float, float]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Scale:
        steps = [step for line in lines for step, _ in line.points]
        values = [value for line in lines for _, value in line.points]
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
        return cls((min(steps), max(steps)), (low - margin, high + margin))

    def x(self, step: float) -> float:
        first, last = self.steps
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(self, value: float) -> float:
        low, high = self.values
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


def _grid(scale: _Scale, label: str) -> list[str]:
    found = []
    for value in round_ticks(*scale.values):
        y = scale.y(value)
        found.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        found.append(tag("text", f"{value:g}", class_="y", x=f"{LEFT - 6}", y=f"{y + 4:.1f}"))
    for step in whole_ticks(*scale.steps):
        found.append(tag("text", str(step), class_="x", x=f"{scale.x(step):.1f}", y=f"{HEIGHT - BOTTOM + 16}"))
    found.append(tag("text", "step", class_="x", x=f"{(LEFT + WIDTH) / 2:.0f}", y=f"{HEIGHT - 3}"))
    middle = f"{HEIGHT / 2:.0f}"
    found.append(tag("text", text(label), class_="label", x="12", y=middle, transform=f"rotate(-90 12 {middle})"))
    return found


def _drawn(line: Line, index: int, scale: _Scale, unit: str) -> str:
    path = "L".join(f"{scale.x(step):.1f} {scale.y(value):.1f}" for step, value in line.points)
    drawn = f'<path d="M{path}" stroke-dasharray="{_dash(index)}"/>'
    for step, value in line.points:
        tip = f"<title>{text(line.name)}, step {step}: {value:.4g}{text(unit)}</title>"
        drawn += f'<circle cx="{scale.x(step):.1f}" cy="{scale.y(value):.1f}" r="3">{tip}</circle>'
    return tag("g", drawn, class_=_style(line, index))


def _legend(lines: Sequence[Line]) -> str:
    found = []
    for index, line in enumerate(lines):
        sample = f'<path d="M0 5H24" stroke-dasharray="{_dash(index)}"/>'
        drawing = tag("svg", tag("g", sample, class_=_style(line, index)), viewBox="0 0 24 10", aria_hidden="true")
        found.append(tag("li", drawing + text(line.name)))
    return tag("figcaption", tag("ul", "".join(found), class_="legend"))


def _style(line: Line, index: int) -> str:
    return f"line c{index % COLORS}" + (" strong" if line.strong else "")


def _dash(index: int) -> str:
    return DASHES[index // COLORS % len(DASHES)]


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
