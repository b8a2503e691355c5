"""Sections of the page about the merge: checkpoints, norms, similarities, layers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from hubmerge.report.accuracy import percent
from hubmerge.report.report import MatrixStats, RunReport, Spread, StepReport
from hubmerge.report.shown import LAST_SHOWN
from hubmerge.report_page.charts import Line, line_chart
from hubmerge.report_page.markup import Cell, cosine, number, section, table, tag, text
from hubmerge.support.text import short_commit
from merge_recipes.references import is_commit

MOST_SIMILARITIES = 40
"""Number of last steps in the map of similarities."""

Link = Callable[[str, str], str]
"""Returns the HTML of a reference at a commit."""

_LAYER = re.compile(r"(.*?\.\d+)\.")


def merge_sections(report: RunReport, link: Link, *, abridged: bool = False) -> list[str]:
    """Return the sections about the merge.

    Args:
        report: the report.
        link: the maker of links.
        abridged: True if the report has the first and last steps alone, in its long form.
    """
    steps = report.steps
    norms = [
        line_chart(_lines(steps, {"task vector": "task_vector_norm", "drift": "drift"}), "Frobenius norm"),
        _chart_of_changes(steps, "λ", "scale", "λ", 1.0),
        _chart_of_changes(steps, "removed share", "removed_share", "share of the task vector", 0.0),
    ]
    return [
        section("checkpoints", "Merged checkpoints", _checkpoints(report, link)),
        section("norms", "Norms and scale", *([] if report.is_joint else norms), _warnings(steps)),
        section(
            "similarities",
            "Similarity of the task vectors",
            _similarities(steps[-(LAST_SHOWN if abridged else MOST_SIMILARITIES) :]),
        ),
        section("layers", "Ranks and removed shares in each layer", _layers(steps)),
    ]


def _checkpoints(report: RunReport, link: Link) -> str:
    if report.is_joint:
        rows = [
            [Cell(text(one.name)), Cell(link(one.reference, one.commit)), _commit(one.commit)] for one in report.models
        ]
        return table(["name", "model", "commit"], rows, "Models merged together in the last step")
    head = ["step", "name", "checkpoint", "commit", "license", "‖τ‖", "‖A‖", "λ", "drift", "removed", "rank"]
    caption = "Checkpoints in merge order, with the norms of task vector τ and accumulated delta A"
    return table(head, [_checkpoint(step, link) for step in report.steps], caption)


def _checkpoint(step: StepReport, link: Link) -> list[Cell]:
    name = text(step.name) + (f" (takes out {text(step.revokes)})" if step.revokes else "")
    removed = step.removed_share
    return [
        Cell(str(step.step), step.step),
        Cell(name),
        Cell(link(step.reference, step.commit)),
        _commit(step.commit),
        Cell(text(", ".join(one.text for one in step.licenses))),
        number(step.task_vector_norm, 4),
        number(step.accumulated_norm, 4),
        number(step.scale, 4),
        number(step.drift, 4),
        Cell("–") if removed is None else Cell(f"{percent(removed)} %", removed),
        number(_mean_of(step.tensors.rank)),
    ]


def _commit(commit: str) -> Cell:
    return Cell(f"<code>{text(short_commit(commit))}</code>", tip=commit if is_commit(commit) else "")


def _mean_of(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _lines(steps: Sequence[StepReport], fields: Mapping[str, str]) -> list[Line]:
    found = []
    for name, field in fields.items():
        values = [(step.step, getattr(step, field)) for step in steps]
        found.append(Line(name, tuple((step, float(value)) for step, value in values if value is not None)))
    return found


def _chart_of_changes(steps: Sequence[StepReport], name: str, field: str, label: str, usual: float) -> str:
    """Return a chart of a value, or a sentence if it has its usual value at every step."""
    (line,) = _lines(steps, {name: field})
    if line.points and all(value == usual for _, value in line.points):
        return tag("p", f"{text(name)}: {usual:g} at every step.")
    return line_chart([line], label)


def _warnings(steps: Sequence[StepReport]) -> str:
    told = [f"<li>step {step.step}: {text(warning)}</li>" for step in steps for warning in step.warnings]
    return f'<ul class="warnings">{"".join(told)}</ul>' if told else ""


def _similarities(shown: Sequence[StepReport]) -> str:
    if not any(step.similarities for step in shown):
        return ""
    rows = []
    for step in shown:
        cosines = {one.step: one.cosine for one in step.similarities}
        cells = [cosine(cosines.get(other.step), f"{step.name}, {other.name}") for other in shown]
        rows.append([Cell(f"{step.step} {text(step.name)}"), *cells])
    caption = "Cosine between the task vectors of each pair of steps, estimated from sketches"
    return table(["step", *(str(step.step) for step in shown)], rows, caption, sortable=False)


def _layers(steps: Sequence[StepReport]) -> str:
    step = next((step for step in reversed(steps) if step.matrices), None)
    if step is None:
        return ""
    groups: dict[str, list[MatrixStats]] = defaultdict(list)
    for matrix in step.matrices:
        found = _LAYER.match(matrix.name)
        groups[found[1] if found else "outside the layers"].append(matrix)
    rows = [[Cell(f"<code>{text(name)}</code>"), *_layer(group)] for name, group in groups.items()]
    head = ["layer", "matrices", "protected directions", "of all", "removed share"]
    return table(head, rows, f"Means over the weight matrices of each layer in step {step.step}, {step.name}")


def _layer(group: Sequence[MatrixStats]) -> list[Cell]:
    rank = sum(matrix.rank for matrix in group) / len(group)
    share = sum(matrix.rank / matrix.directions for matrix in group if matrix.directions) / len(group)
    removed = sum(matrix.removed_share for matrix in group) / len(group)
    return [
        Cell(str(len(group)), len(group)),
        number(rank),
        Cell(f"{percent(share)} %", share, heat=share),
        Cell(f"{percent(removed)} %", removed, heat=removed),
    ]
