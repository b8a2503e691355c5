"""Section of a card on the steps: scale, norms, ranks, rounding and cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hubmerge.cards.markup import details, plain, shown_rows, table
from hubmerge.report.report import RunReport, Spread, StepReport
from hubmerge.report.shown import shown
from hubmerge.support.text import counted

_FORMULA = "The merged model after step t is base + A / λ. Norms are Frobenius norms over all merged tensors. Columns:"
_READ_FORMULA = (
    "The merged model after step t is read out of sums over all task vectors; A is the plain sum. Norms are Frobenius "
    "norms over all merged tensors. Columns:"
)
_COLUMNS = {
    "λ": "scale",
    "‖A‖": "norm of the accumulated delta A",
    "‖τ‖": "norm of the task vector τ = checkpoint − base",
    "drift": "‖A‖ / λ, the distance of the merged model from the base model",
    "cos(τ, A)": "cosine between the task vector and the accumulated delta before the step",
    "rank": "number of protected directions in a weight matrix: mean (smallest–largest)",
    "removed": "share of the squared norm of τ that the projection removed, per weight matrix: mean (smallest–largest)",
}
_TRUNCATED = "distance of the result from that of the exact projection, relative to ‖τ‖: mean (smallest–largest)"
_ROUNDING = (
    "distance of the written weights from the computed ones, relative to ‖A‖ / λ; near 100 %, the dtype of the "
    "weights is too coarse for this merge"
)


def norms(report: RunReport, *, whole: bool = False, warns: bool = True) -> str:
    """Return the table of the steps, with the meaning of its columns, warnings and cosines.

    Args:
        report: the report.
        whole: True for all steps, however many there are.
        warns: True for the warnings of the steps below the table.
    """
    steps = report.steps if whole else [step for part in shown(report.steps) for step in part]
    truncated = any(step.tensors.error is not None for step in steps)
    rounded = any(step.rounding is not None for step in steps)
    columns = dict(_COLUMNS)
    read = _is_read(report)
    columns |= {"drift": "distance of the merged model from the base model, for written models"} if read else {}
    columns |= {"truncated": _TRUNCATED} if truncated else {}
    columns |= {"rounding": _ROUNDING} if rounded else {}
    rows = shown_rows(
        report.steps, lambda step: _row(step, read=read, truncated=truncated, rounded=rounded), whole=whole
    )
    header = ["step", "name", *columns]
    meanings = "\n".join(f"- {name}: {meaning}" for name, meaning in columns.items())
    warnings = "".join(f"\n\nStep {step.step}: {plain(text)}." for step in steps for text in step.warnings if warns)
    content = table(header, rows, "rl" + "r" * len(columns))
    formula = _READ_FORMULA if read else _FORMULA
    return f"{formula}\n\n{meanings}\n\n{content}{_statistics(report)}{warnings}{_similarities(steps)}"


def _statistics(report: RunReport) -> str:
    """Return a paragraph on averaged statistics, an empty text if there are none."""
    count = report.steps[-1].tensors.averaged
    if not count:
        return ""
    are = "is a statistic and not a weight" if count == 1 else "are statistics and not weights"
    it, has = ("It is", "has") if count == 1 else ("They are", "have")
    return (
        f"\n\n{counted(count, 'tensor')} {are}, such as running means and variances. {it} averaged over the "
        f"checkpoints, weighted as the entries are, and {has} no part in the norms."
    )


def _is_read(report: RunReport) -> bool:
    """Return True if the merged delta of a written model is not A / λ."""
    return any(
        step.drift is not None and not math.isclose(step.drift, _distance(step), rel_tol=1e-6) for step in report.steps
    )


def _drift(step: StepReport, *, read: bool) -> str:
    if step.drift is not None:
        return _number(step.drift)
    return "-" if read else _number(_distance(step))


def _distance(step: StepReport) -> float:
    """Return ‖A‖ / λ; NaN for a step whose norms are not measured."""
    if step.accumulated_norm is None or step.scale is None:
        return math.nan
    return step.accumulated_norm / step.scale


def _row(step: StepReport, *, read: bool, truncated: bool, rounded: bool) -> list[str]:
    return [
        str(step.step),
        plain(step.name),
        _number(step.scale),
        _number(step.accumulated_norm),
        _number(step.task_vector_norm),
        _drift(step, read=read),
        "-" if step.similarity is None else f"{step.similarity:.3f}",
        _spread(step.tensors.rank, 1),
        _spread(step.tensors.removed_share, 100, " %"),
        *([_spread(step.tensors.error, 100, " %")] if truncated else []),
        *([_share(step.rounding)] if rounded else []),
    ]


def _similarities(steps: Sequence[StepReport]) -> str:
    """Return the cosines between the task vectors of the steps, an empty text if there are none."""
    if not any(step.similarities for step in steps):
        return ""
    rows = []
    for step in steps[1:]:
        known = {earlier.step: earlier.cosine for earlier in step.similarities}
        values = [known.get(earlier.step) for earlier in steps[:-1]]
        shown = ["" if value is None else f"{value:.2f}" for value in values]
        rows.append([str(step.step), plain(step.name), *shown])
    header = ["step", "name", *(str(step.step) for step in steps[:-1])]
    content = table(header, rows, "rl" + "r" * (len(header) - 2))
    return "\n\n" + details("Cosines between the task vectors of the steps, estimated from sketches (± 0.04)", content)


def _number(value: float | None) -> str:
    """Return four significant digits, a dash for what is not measured."""
    return "-" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    """Return two significant digits in percent, because the value may be tiny."""
    return "-" if value is None else f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def _spread(spread: Spread | None, factor: float, unit: str = "") -> str:
    if spread is None:
        return "-"
    mean, low, high = (value * factor for value in (spread.mean, spread.minimum, spread.maximum))
    digits = ".1f" if unit else ".0f"
    return f"{mean:.1f}{unit} ({low:{digits}}–{high:{digits}})"
