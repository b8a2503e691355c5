"""Sections of the page about scores: the headline, the accuracy matrix, curves, gains and losses."""

from __future__ import annotations

from hubmerge.report.accuracy import AccuracyMatrix, percent
from hubmerge.report.report import RunReport
from hubmerge.report.shown import shown
from hubmerge.report_page.charts import Line, line_chart
from hubmerge.report_page.markup import EMPTY, Cell, section, table, tag, text

MOST_LINES = 24
"""Number of tasks up to which each has a line of its own."""

MOST_CELLS = 10_000
"""Number of scores up to which a page shows the whole accuracy matrix."""


def headline(report: RunReport, matrix: AccuracyMatrix) -> str:
    """Return the numbers at the top of the page: accuracy of base model, merged model and own checkpoints."""
    if not matrix.rows:
        return ""
    last = matrix.steps[-1]
    base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
    tiles = [
        ("base model", percent(matrix.counted_average(base))),
        ("merged model", percent(matrix.average(last))),
        ("own checkpoints", percent(matrix.counted_average(own))),
        ("share kept", percent(matrix.share_of_own(own))),
        ("backward transfer", percent(matrix.backward_transfer(), "+")),
    ]
    shown = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in tiles if value != "-")
    return tag("dl", shown, class_="tiles")


def score_sections(report: RunReport, matrix: AccuracyMatrix, *, abridged: bool = False) -> list[str]:
    """Return the sections about scores; none if no task was scored.

    Args:
        report: the report.
        matrix: its accuracy matrix.
        abridged: True for the first and last steps and tasks of the matrix alone. A matrix with more cells than a page
            can hold is always shown so.
    """
    if not matrix.rows:
        return []
    notes = "".join(f"<dt>{text(value)}</dt><dd>{text(name)}</dd>" for name, value in matrix.measures())
    notes += f"<dt></dt><dd>{text(matrix.remark)}</dd>" if matrix.remark else ""
    return [
        section(
            "matrix", "Accuracy matrix", _matrix(report, matrix, abridged=abridged), tag("dl", notes, class_="measures")
        ),
        section("curves", "Accuracy after each step", line_chart(_lines(matrix), "accuracy in percent", unit=" %")),
        section("tasks", "Gains and losses", _gains(report, matrix)),
    ]


def _matrix(report: RunReport, matrix: AccuracyMatrix, *, abridged: bool) -> str:
    abridged |= len(matrix.steps) * len(matrix.tasks) > MOST_CELLS
    steps = matrix.shown_steps if abridged else list[int | None](matrix.steps)
    tasks = [task for part in shown(matrix.tasks) for task in part] if abridged else matrix.tasks

    def row(name: str, scores: dict[str, float | None], average: float | None) -> list[Cell]:
        cells = [_score(scores.get(task), f"{name}, {task}") for task in tasks]
        return [Cell(text(name)), *cells, _score(average, f"{name}, average")]

    base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
    rows = [row("base model", {**base}, matrix.counted_average(base))] if base else []
    names = {step.step: step.name for step in report.steps}
    for step in steps:
        if step is None:
            rows.append([Cell("…"), *[EMPTY] * (len(tasks) + 1)])
            continue
        scores = {task: matrix.value(step, task) for task in tasks}
        rows.append(row(f"{step} {names.get(step, '')}".strip(), scores, matrix.average(step)))
    if own:
        rows.append(row("own checkpoints", {**own}, matrix.counted_average(own)))
    caption = "Accuracy in percent: a row for each step, a column for each task"
    if len(tasks) < len(matrix.tasks):
        caption += f"; {len(tasks)} of {len(matrix.tasks)} tasks"
    return table(["step", *tasks, "average"], rows, caption, sortable=False)


def _score(value: float | None, where: str) -> Cell:
    return EMPTY if value is None else Cell(percent(value), value, heat=value, tip=f"{where}: {100 * value:.2f} %")


def _lines(matrix: AccuracyMatrix) -> list[Line]:
    averages = [(step, matrix.average(step)) for step in matrix.steps]
    found = [Line("average", tuple((step, 100 * value) for step, value in averages if value is not None), strong=True)]
    if len(matrix.tasks) > MOST_LINES:
        return found
    for task in matrix.tasks:
        values = [(step, matrix.value(step, task)) for step in matrix.steps]
        found.append(Line(task, tuple((step, 100 * value) for step, value in values if value is not None)))
    return found


def _gains(report: RunReport, matrix: AccuracyMatrix) -> str:
    base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
    last = matrix.steps[-1]
    counted, rows = {*matrix.counted(last)}, []
    for task in matrix.seen(last):
        merged, first, best = matrix.value(last, task), base.get(task), own.get(task)
        gain = None if merged is None or first is None else merged - first
        loss = None if merged is None or best is None else merged - best
        share = None if merged is None or not best else merged / best
        values = [_percent(value) for value in (first, best, merged)]
        name = task if task in counted else f"{task} (taken out)"
        rows.append([Cell(text(name)), *values, _percent(gain, "+"), _percent(loss, "+"), _percent(share)])
    head = ["task", "base model", "own checkpoint", "merged", "against base", "against own", "share kept"]
    return table(
        head, rows, "Scores of the merged model beside those of the base model and of each task's own checkpoint"
    )


def _percent(value: float | None, sign: str = "") -> Cell:
    return Cell(percent(value, sign), value)
