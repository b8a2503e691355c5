"""Picture of the accuracy matrix: a row for each step, a column for each task, a number in each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from hubmerge.report.accuracy import AccuracyMatrix, percent
from hubmerge.report.shown import shown
from hubmerge.support.chart_style import MAP, map_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160
FEWER_DOTS = 100  # of long streams: the picture stays small
NAME_CHARACTERS = 26
INK, FAINT = "#1f2328", "#656d76"


def accuracy_picture(
    matrix: AccuracyMatrix,
    *,
    base: Mapping[str, float] | None = None,
    own: Mapping[str, float] | None = None,
    names: Mapping[int, str] | None = None,
    title: str = "Accuracy on every task after every step (%)",
    whole: bool = False,
) -> bytes:
    """Return a PNG of the matrix. The same matrix gives the same bytes with the same version of matplotlib.

    Of many steps or tasks, the first and the last ones are drawn.

    Args:
        matrix: the accuracies, between 0 and 1.
        base: the accuracies of the base model by task, shown above the matrix.
        own: the accuracy of each task's own checkpoint, shown below the matrix.
        names: the labels of the steps.
        title: the line above the picture.
        whole: True to draw all steps and tasks, however many there are.

    Raises:
        ValueError: the matrix has no row.
    """
    if not matrix.rows:
        raise ValueError("cannot draw an accuracy matrix without rows")
    tasks = matrix.seen(matrix.steps[-1])
    rows = _rows(matrix, tasks, base, own, names or {}, matrix.steps if whole else matrix.shown_steps)
    if not whole:
        columns = [column for part in shown(range(len(tasks))) for column in part]
        tasks = tuple(tasks[column] for column in columns)
        rows = [row.with_columns([*columns, -1]) for row in rows]
    small = not whole and (None in matrix.shown_steps or len(matrix.tasks) > len(tasks))
    figure, axes = _empty_figure(rows, tasks, title, FEWER_DOTS if small else DOTS_PER_INCH)
    for row in rows:
        _draw_row(axes, row, len(tasks))
    _draw_column_names(axes, tasks)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _empty_figure(rows: Sequence[_Row], tasks: Sequence[str], title: str, dots: int) -> tuple[Figure, Axes]:
    """Return a figure with its title that has room for the rows, and axes whose unit is a cell."""
    # Imported here because runs without scores draw nothing.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lowest = rows[-1].top + 1
    columns = len(tasks) + 1.25  # the average stands a quarter of a cell apart
    cell = 0.62 if len(tasks) <= 10 else 0.54
    labels = max(len(row.label) for row in rows)
    left = 0.35 + 0.075 * labels
    above = 0.72 + 0.046 * max(len(_shortened(task)) for task in tasks)
    width = max(left + columns * cell + 0.45, 4.6)
    height = above + lowest * cell * 0.8 + 0.3
    figure = Figure(figsize=(width, height), dpi=dots, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, 0.3 / height, columns * cell / width, 1 - (above + 0.3) / height))
    axes.set_xlim(0, columns)
    axes.set_ylim(lowest, 0)
    axes.axis("off")
    figure.text(0.12 / width, 1 - 0.14 / height, title, size=10.5, color=INK, va="top", weight="bold")
    return figure, axes


def _draw_column_names(axes: Axes, tasks: Sequence[str]) -> None:
    """Write the names of the tasks and "average" above the columns."""
    size = 8.5 if len(tasks) <= 12 else 7.5
    for number, task in enumerate((*map(_shortened, tasks), "average")):
        place = number + 0.5 + (0.25 if number == len(tasks) else 0)
        axes.text(
            place, -0.15, task, rotation=45, ha="left", va="bottom", rotation_mode="anchor", size=size, color=INK,
            weight="bold" if number == len(tasks) else "normal", parse_math=False,
        )  # fmt: skip


class _Row:
    """One row of the picture: its label, its values, and its distance from the top in cells."""

    def __init__(self, label: str, values: Sequence[float | None], top: float, *, reference: bool) -> None:
        self.label, self.values, self.top, self.reference = label, values, top, reference

    def with_columns(self, columns: Sequence[int]) -> _Row:
        """Return the row with some of its values; a row without values stands for a gap."""
        values = [self.values[column] for column in columns] if self.values else []
        return _Row(self.label, values, self.top, reference=self.reference)


def _rows(
    matrix: AccuracyMatrix,
    tasks: Sequence[str],
    base: Mapping[str, float] | None,
    own: Mapping[str, float] | None,
    names: Mapping[int, str],
    steps: Sequence[int | None],
) -> list[_Row]:
    """Return the rows: base model, steps, own checkpoints, with a gap of a quarter of a cell between them."""
    rows: list[_Row] = []
    top = 0.0
    if base:
        rows.append(_Row("base model", [*map(base.get, tasks), matrix.counted_average(base)], top, reference=True))
        top += 1.25
    for step in steps:
        if step is None:
            rows.append(_Row("...", [], top, reference=True))
            top += 1
            continue
        values = [matrix.value(step, task) for task in tasks]
        label = f"{step}  {_shortened(names[step])}" if step in names else f"step {step}"
        rows.append(_Row(label, [*values, matrix.average(step)], top, reference=False))
        top += 1
    if own:
        rows.append(
            _Row("own checkpoints", [*map(own.get, tasks), matrix.counted_average(own)], top + 0.25, reference=True)
        )
    return rows


def _draw_row(axes: Axes, row: _Row, tasks: int) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import FancyBboxPatch

    axes.text(
        -0.18, row.top + 0.5, row.label, ha="right", va="center", size=8.5, color=FAINT if row.reference else INK,
        style="italic" if row.reference else "normal", parse_math=False,
    )  # fmt: skip
    for column, value in enumerate(row.values):
        if value is None:
            continue
        place = column + (0.25 if column == tasks else 0)
        color: Any = colormaps[MAP](map_place(value))
        axes.add_patch(
            FancyBboxPatch(
                (place + 0.05, row.top + 0.05), 0.9, 0.9, boxstyle="round,pad=0,rounding_size=0.12",
                facecolor=color, edgecolor="none", alpha=1.0, mutation_aspect=1.0,
            )
        )  # fmt: skip
        axes.text(
            place + 0.5, row.top + 0.52, percent(value), ha="center", va="center", size=8,
            color="white" if _luminance(color) < 0.24 else INK, weight="bold" if column == tasks else "normal",
        )  # fmt: skip


def _luminance(color: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB color as defined by WCAG 2, 0 (black) to 1 (white)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _shortened(name: str) -> str:
    """Return at most `NAME_CHARACTERS` characters, all of them in the font."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= NAME_CHARACTERS else plain[: NAME_CHARACTERS - 1] + "…"
