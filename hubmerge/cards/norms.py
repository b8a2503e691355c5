"""The part of a card that tells what every step did to the model: scale, norms, ranks, rounding and cosines."""

from __future__ import annotations

from hubmerge.cards.markup import details, plain, table
from hubmerge.report.report import RunReport, Spread


def norms(report: RunReport) -> str:
    """The table of what every step did to scale, norms and ranks, what is to be known of it, and the cosines."""
    truncated = any(step.tensors.error is not None for step in report.steps)
    rounded = any(step.rounding is not None for step in report.steps)
    rows = [
        [
            str(step.step),
            plain(step.name),
            _number(step.scale),
            _number(step.accumulated_norm),
            _number(step.task_vector_norm),
            _number(step.accumulated_norm / step.scale if step.drift is None else step.drift),
            "-" if step.similarity is None else f"{step.similarity:.3f}",
            _spread(step.tensors.rank, 1),
            _spread(step.tensors.removed_share, 100, " %"),
            *([_spread(step.tensors.error, 100, " %")] if truncated else []),
            *([_share(step.rounding)] if rounded else []),
        ]
        for step in report.steps
    ]
    header = ["step", "name", "λ", "‖A‖", "‖τ‖", "drift", "cos(τ, A)", "rank", "removed"]
    header += ["truncated"] if truncated else []
    header += ["rounding"] if rounded else []
    notes = "".join(f"\n\nStep {step.step}: {plain(text)}." for step in report.steps for text in step.warnings)
    return (
        "The merged model after step t is base + A / λ. A is the accumulated delta, τ the step's task vector "
        "(checkpoint − base); norms are Frobenius norms over all merged tensors. Drift is ‖A‖ / λ, the distance from "
        "the base. Rank (protected directions) and removed (share of the squared norm of τ that the projection took "
        "away) are means over weight matrices, with the smallest and the largest."
        + (" Truncated: how far the result is from that of the exact projection, over ‖τ‖." if truncated else "")
        + (
            " Rounding: how far the written weights are from the merged model as it was computed, over ‖A‖ / λ; near "
            "100 % their dtype is too coarse to hold what was merged."
            if rounded
            else ""
        )
        + "\n\n"
        + table(header, rows, "rl" + "r" * (len(header) - 2))
        + notes
        + _similarities(report)
    )


def _similarities(report: RunReport) -> str:
    """Cosines between the task vectors of all steps, if they were kept."""
    if not any(step.similarities for step in report.steps):
        return ""
    rows = []
    for step in report.steps[1:]:
        known = {earlier.step: earlier.cosine for earlier in step.similarities}
        values = [known.get(earlier.step) for earlier in report.steps[:-1]]
        shown = ["" if value is None else f"{value:.2f}" for value in values]
        rows.append([str(step.step), plain(step.name), *shown])
    header = ["step", "name", *(str(step.step) for step in report.steps[:-1])]
    content = table(header, rows, "rl" + "r" * (len(header) - 2))
    return "\n\n" + details("Cosines between the task vectors of the steps, from sketches (± 0.04)", content)


def _number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def _share(value: float | None) -> str:
    """Two significant digits, in percent: it may be tiny."""
    return "-" if value is None else f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.2g} %"


def _spread(spread: Spread | None, factor: float, unit: str = "") -> str:
    if spread is None:
        return "-"
    mean, low, high = (value * factor for value in (spread.mean, spread.minimum, spread.maximum))
    digits = ".1f" if unit else ".0f"
    return f"{mean:.1f}{unit} ({low:{digits}}–{high:{digits}})"
