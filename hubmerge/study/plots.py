"""Plots of a study as PNG bytes; the same results give the same bytes with the same version of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hubmerge.study.results import CellResult, References, Summary, grouped, longest
from hubmerge.support.chart_style import COLORS, SIGNED_MAP, line_style

DOTS_PER_INCH = 110


def accuracy_per_step(results: Sequence[CellResult]) -> bytes:
    """Plot the average accuracy over the tasks seen so far by step, with a band of one deviation over the orders."""
    figure, axes = _figure(7.2, 4.2)
    for number, ((label,), group) in enumerate(grouped(longest(results), "label").items()):
        matrices = [result.accuracies for result in group]
        steps = matrices[0].steps
        summaries = [Summary.of(matrix.average(step) for matrix in matrices) for step in steps]
        means = np.array([100 * (summary.mean or 0.0) for summary in summaries])
        spread = np.array([100 * (summary.deviation or 0.0) for summary in summaries])
        style = _style(number)
        axes.plot(steps, means, **style, label=label)
        axes.fill_between(steps, means - spread, means + spread, color=style["color"], alpha=0.12, lw=0)
    _whole_steps(axes)
    _finish(axes, "step", "average accuracy (%)", "Accuracy on the tasks seen so far")
    return _png(figure)


def sweep(results: Sequence[CellResult], parameter: str) -> bytes:
    """Plot the accuracy after the last step against one swept parameter, for each series that sweeps it."""
    figure, axes = _figure(6.4, 4.0)
    for number, ((series,), group) in enumerate(grouped(longest(results), "series").items()):
        points = [result for result in group if isinstance(result.point.get(parameter), (int, float))]
        values = sorted({result.point[parameter] for result in points})
        summaries = [Summary.of(r.average for r in points if r.point[parameter] == value) for value in values]
        if not values:
            continue
        axes.errorbar(
            values,
            [100 * (summary.mean or 0.0) for summary in summaries],
            yerr=[100 * (summary.deviation or 0.0) for summary in summaries],
            **_style(number),
            capsize=3,
            label=series,
        )
    _finish(axes, parameter, "average accuracy (%)", f"Accuracy after the last step against {parameter}")
    return _png(figure)


def order_spread(results: Sequence[CellResult]) -> bytes:
    """Draw a box plot of the accuracy after the last step over the orders."""
    groups = {label: group for (label,), group in grouped(longest(results), "label").items()}
    figure, axes = _figure(7.2, 0.9 + 0.36 * len(groups))
    values = [[100 * r.average for r in group if r.average is not None] for group in groups.values()]
    axes.boxplot(
        values, orientation="horizontal", tick_labels=list(groups), widths=0.6, medianprops={"color": COLORS[1]}
    )
    for row, numbers in enumerate(values, start=1):
        offsets = np.linspace(-0.18, 0.18, len(numbers)) if len(numbers) > 1 else [0.0]
        axes.scatter(numbers, row + np.asarray(offsets), s=9, color=COLORS[0], alpha=0.7, zorder=3, lw=0)
    axes.invert_yaxis()
    _finish(axes, "average accuracy after the last step (%)", "", "Spread over the orders", legend=False)
    return _png(figure)


def drift(results: Sequence[CellResult]) -> bytes:
    """Plot the distance of the merged model from the base by step, in units of the mean task vector so far."""
    figure, axes = _figure(7.2, 4.2)
    for number, ((label,), group) in enumerate(grouped(longest(results), "label").items()):
        steps = range(1, len(group[0].steps) + 1)
        relative = [
            [
                _measured(step.drift) / np.mean([_measured(s.task_vector_norm) for s in result.steps[:n]])
                for n, step in enumerate(result.steps, 1)
            ]
            for result in group
        ]
        axes.plot(steps, np.mean(relative, axis=0), **_style(number), label=label)
    _whole_steps(axes)
    _finish(axes, "step", "distance from the base / mean task vector", "Drift from the base model")
    return _png(figure)


def _measured(value: float | None) -> float:
    return np.nan if value is None else value


def similarity_map(references: References) -> bytes:
    """Draw the cosines between the task vectors of the stream."""
    names = references.names
    size = 1.9 + 0.42 * len(names)
    figure, axes = _figure(size + 0.6, size)
    values = np.array([[np.nan if value is None else value for value in row] for row in references.cosines])
    image = axes.imshow(values, vmin=-1.0, vmax=1.0, cmap=SIGNED_MAP)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if row != column and np.isfinite(value):
                color = "white" if abs(value) > 0.6 else "#1f2328"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set_title("Cosines between task vectors", fontsize=10, loc="left")
    return _png(figure)


def _style(number: int) -> dict[str, Any]:
    """Return the style of a line, which differs from the others without its color too."""
    style = line_style(number)
    dashes: Any = (0, style.dashes) if style.dashes else "-"
    return {"color": COLORS[style.color], "linestyle": dashes, "marker": style.mark, "ms": 4, "lw": 1.4}


def _whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _finish(axes: Axes, across: str, up: str, title: str, *, legend: bool = True) -> None:
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#d0d7de", lw=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
