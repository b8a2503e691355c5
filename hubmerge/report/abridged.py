"""Short forms of the reports of earlier steps: `hubmerge.json` stays small, however long the stream is.

The last `WHOLE_STEPS` steps are whole. The steps that the card shows have what it shows of them. The other steps have
what a run needs to extend the stream, and the scores that the measures need. The whole report of every step is in
`history/`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hubmerge.report.shown import FIRST_SHOWN, LAST_SHOWN, is_shown, shown
from hubmerge.report.step import Scores, StepReport
from merge_recipes.canonical import canonical_report_json

_TEXT = "_text"
"""Attribute of a hidden step: its text, which a run keeps from step to step."""

WHOLE_STEPS = 4
"""Number of last steps that `hubmerge.json` has whole."""


def abridge(steps: Sequence[StepReport], metrics: Mapping[str, str]) -> tuple[StepReport, ...]:
    """Return the steps as `hubmerge.json` has them; abridged steps stay as they are.

    Args:
        steps: all steps, in order.
        metrics: the main metric of each task.
    """
    last = len(steps)
    weights = next((step.step for step in reversed(steps) if step.files), 0)
    long = max(last, len(metrics)) > FIRST_SHOWN + LAST_SHOWN
    kept = _kept_cells(steps, metrics) if long else {}
    tables = {task: metrics[task] for part in shown(list(metrics)) for task in part}
    found = []
    for step in steps:
        if step.step > last - WHOLE_STEPS:
            found.append(step)
        elif is_shown(step.step, last):
            scores = {**kept.get(step.step, {}), **_main(step.scores, tables)}
            found.append(_shown_step(step, last, scores))
        else:
            found.append(_hidden_step(step, kept.get(step.step, {}), with_files=step.step == weights))
    return tuple(found)


def row_text(step: StepReport) -> str:
    """Return the text of a step in `hubmerge.json`; without unused keys if no table shows the step."""
    text: str | None = vars(step).get(_TEXT)
    return canonical_report_json(step.to_dict()) if text is None else text


def _row_values(step: StepReport) -> dict[str, Any]:
    values = {
        "accumulated_norm": step.accumulated_norm,
        "chain_digest": step.chain_digest,
        "commit": step.commit,
        "digest": step.digest,
        "name": step.name,
        "reference": step.reference,
        "scale": step.scale,
        "step": step.step,
        "task_vector_norm": step.task_vector_norm,
    }
    used = {"scores": step.scores, "files": step.files, "licenses": step.plain_licenses, "head": step.head}
    used["revokes"] = step.revokes
    used["replaces"] = list(step.replaces)
    if step.inputs or step.layers or step.combined:
        used |= {key: step.to_dict().get(key) for key in ("inputs", "layers", "combined")}
    return {**values, **{key: value for key, value in used.items() if value}}


def _shown_step(step: StepReport, last: int, scores: Scores) -> StepReport:
    similarities = tuple(
        dataclasses.replace(one, layers={}) if one.layers else one
        for one in step.similarities
        if is_shown(one.step, last)
    )
    return dataclasses.replace(step, matrices=(), similarities=similarities, scores=scores)


def _hidden_step(step: StepReport, scores: Scores, *, with_files: bool) -> StepReport:
    if _TEXT in vars(step) and step.scores == scores and bool(step.files) == with_files:
        return step
    hidden = StepReport(
        step=step.step,
        name=step.name,
        reference=step.reference,
        commit=step.commit,
        revokes=step.revokes,
        replaces=step.replaces,
        scale=step.scale,
        accumulated_norm=step.accumulated_norm,
        task_vector_norm=step.task_vector_norm,
        scores=scores,
        chain_digest=step.chain_digest,
        files=step.files if with_files else {},
        digest=step.digest,
        licenses=step.licenses,
        head=step.head,
        inputs=step.inputs,
        layers=step.layers,
        combined=step.combined,
    )
    vars(hidden)[_TEXT] = canonical_report_json(_row_values(hidden))
    return hidden


def _main(scores: Scores, metrics: Mapping[str, str]) -> Scores:
    """Return the main metrics in the scores of a step."""
    return {
        task: {metric: scores[task][metric]}
        for task, metric in metrics.items()
        if task in scores and metric in scores[task]
    }


def _kept_cells(steps: Iterable[StepReport], metrics: Mapping[str, str]) -> dict[int, Scores]:
    """Return by step the scores that the measures need: of each task the first, the best and the worst one."""
    kept: dict[int, Scores] = {}
    best: dict[str, tuple[float, int]] = {}
    worst: dict[str, tuple[float, int]] = {}
    first: dict[str, int] = {}
    by_step = {step.step: step.scores for step in steps}
    for number, scores in by_step.items():
        for task, values in _main(scores, metrics).items():
            value = values[metrics[task]]
            if isinstance(value, list):
                continue
            first.setdefault(task, number)
            if task not in best or value > best[task][0]:
                best[task] = value, number
            if task not in worst or value < worst[task][0]:
                worst[task] = value, number
    for task in first:
        for number in (first[task], best[task][1], worst[task][1]):
            kept.setdefault(number, {})[task] = {metrics[task]: by_step[number][task][metrics[task]]}
    return kept


def lines_text(value: Any) -> str:
    """Return the JSON of a value, with the items of a list or a mapping in lines of their own."""
    if not isinstance(value, (list, tuple, dict)) or not value:
        return canonical_report_json(value)
    if isinstance(value, dict):
        items = [f"{canonical_report_json(key)}: {canonical_report_json(value[key])}" for key in sorted(value)]
    else:
        items = [canonical_report_json(item) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n    " + ",\n    ".join(items) + f"\n  {closing}"
