"""Charts as SVG: lines over steps or other numbers, and dots in rows. Values appear on hover."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hubmerge.report_page.axes import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, Scale, value_axis, whole_ticks
from hubmerge.report_page.marks import mark_path
from hubmerge.report_page.markup import tag, text
from hubmerge.support.chart_style import line_style

ROW, NAMES = 26, 190
"""Height of a row of dots, and width of the names beside them."""

STEP = "step"


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: its name in the legend.
        points: (step or other number, value) of each point.
        strong: True for a thick line.
        spread: the length of the bar above and below each point; empty for none.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    strong: bool = False
    spread: tuple[float, ...] = ()


def line_chart(lines: Sequence[Line], label: str, *, unit: str = "", across: str = STEP) -> str:
    """Return a chart with one line for each series, and its legend. The axis of steps has whole numbers.

    Args:
        lines: the series; those without a point are left out.
        label: what the vertical axis shows.
        unit: the unit in the texts of the points.
        across: what the horizontal axis shows.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    across_all = [place for line in lines for place, _ in line.points]
    values = [value + sign * bar for line in lines for value, bar in _with_bars(line) for sign in (-1, 1)]
    scale = Scale.of(across_all, values)
    parts = [
        *_grid(scale, label, across),
        *(_drawn(line, i, scale, f"{across} ", unit) for i, line in enumerate(lines)),
    ]
    names = ", ".join(line.name for line in lines)
    return tag("figure", _drawing(parts, HEIGHT, f"{label}: {names}") + _legend(lines))


def _with_bars(line: Line) -> list[tuple[float, float]]:
    bars = line.spread or (0.0,) * len(line.points)
    return [(value, bar) for (_, value), bar in zip(line.points, bars, strict=True)]


def _drawing(parts: Sequence[str], height: int, label: str) -> str:
    """Return the drawing in a box that scrolls sideways on phones, where smaller numbers could not be read."""
    size = f"0 0 {WIDTH} {height}"
    drawing = tag("svg", "".join(parts), class_="chart", viewBox=size, role="img", aria_label=label)
    return tag("div", drawing, class_="wide", tabindex="0", role="region", aria_label=f"chart of {label}")


def _grid(scale: Scale, label: str, across: str) -> list[str]:
    found = [*value_axis(scale, label)]
    steps = whole_ticks(round(scale.across[0]), round(scale.across[1])) if across == STEP else scale.across_ticks()
    for step in steps:
        found.append(tag("text", f"{step:g}", class_="x", x=f"{scale.x(step):.1f}", y=f"{HEIGHT - BOTTOM + 16}"))
    return [*found, tag("text", text(across), class_="x", x=f"{(LEFT + WIDTH) / 2:.0f}", y=f"{HEIGHT - 3}")]


def _drawn(line: Line, index: int, scale: Scale, place: str, unit: str) -> str:
    path = "L".join(f"{scale.x(step):.1f} {scale.y(value):.1f}" for step, value in line.points)
    drawn = f'<path d="M{path}" stroke-dasharray="{_dashes(index)}"/>'
    for (step, value), (_, bar) in zip(line.points, _with_bars(line), strict=True):
        x = scale.x(step)
        if bar:
            drawn += f'<path class="bar" d="M{x:.1f} {scale.y(value + bar):.1f}V{scale.y(value - bar):.1f}"/>'
        shown = f"{value:.4g}" + (f" ± {bar:.2g}" if bar else "")
        tip = f"<title>{text(line.name)}, {text(place)}{step:g}: {shown}{text(unit)}</title>"
        drawn += f'<path class="mark" d="{mark_path(line_style(index).mark, x, scale.y(value))}">{tip}</path>'
    return tag("g", drawn, class_=_style(line, index))


def _legend(lines: Sequence[Line]) -> str:
    found = []
    for index, line in enumerate(lines):
        sample = f'<path d="M0 5H30" stroke-dasharray="{_dashes(index)}"/>'
        sample += f'<path class="mark" d="{mark_path(line_style(index).mark, 15, 5)}"/>'
        drawing = tag("svg", tag("g", sample, class_=_style(line, index)), viewBox="0 0 30 10", aria_hidden="true")
        found.append(tag("li", drawing + text(line.name)))
    return tag("figcaption", tag("ul", "".join(found), class_="legend"))


def _style(line: Line, index: int) -> str:
    return f"line c{line_style(index).color}" + (" strong" if line.strong else "")


def _dashes(index: int) -> str:
    return " ".join(map(str, line_style(index).dashes))


def dot_chart(rows: Sequence[tuple[str, Sequence[float]]], label: str, *, unit: str = "") -> str:
    """Return a chart with a row of dots for each name, and a bar at the mean of the row.

    Args:
        rows: the name and the values of each row; rows without values are left out.
        label: what the axis shows.
        unit: the unit in the texts of the dots.
    """
    rows = [(name, values) for name, values in rows if values]
    if not rows:
        return ""
    everything = [value for _, values in rows for value in values]
    scale, height = Scale.of(everything, everything), ROW * len(rows) + BOTTOM + 6
    squeeze = (WIDTH - RIGHT - NAMES) / (WIDTH - RIGHT - LEFT)

    def x(value: float) -> float:
        return NAMES + (scale.x(value) - LEFT) * squeeze

    parts = []
    for tick in scale.across_ticks():
        parts.append(f'<path class="grid" d="M{x(tick):.1f} 0V{height - BOTTOM}"/>')
        parts.append(tag("text", f"{tick:g}", class_="x", x=f"{x(tick):.1f}", y=f"{height - BOTTOM + 16}"))
    parts.append(tag("text", text(label), class_="x", x=f"{(NAMES + WIDTH) / 2:.0f}", y=f"{height - 3}"))
    parts += [_dots(name, values, ROW * (i + 0.5) + 3, x, unit) for i, (name, values) in enumerate(rows)]
    return tag("figure", _drawing(parts, height, f"{label}: {', '.join(name for name, _ in rows)}"))


def _dots(name: str, values: Sequence[float], y: float, x: Callable[[float], float], unit: str) -> str:
    """Return the name, the dots and the mean of a row at a height."""
    mean, short = math.fsum(values) / len(values), name if len(name) <= 28 else f"{name[:27]}…"
    tip = f"<title>{text(name)}: mean {mean:.4g}{text(unit)}</title>"
    drawn = f'<path class="bar" d="M{x(mean):.1f} {y - 9:.1f}v18">{tip}</path>'
    for value in values:
        tip = f"<title>{text(name)}: {value:.4g}{text(unit)}</title>"
        drawn += f'<path class="mark" d="{mark_path("o", x(value), y)}">{tip}</path>'
    shown = tag("text", text(short), class_="y", x=f"{NAMES - 10}", y=f"{y + 4:.1f}")
    return shown + tag("g", drawn, class_="line c0")
