"""Section of a card on the scores: a table of the tasks, the measures, the accuracy matrix, other metrics."""

from __future__ import annotations

from hubmerge.cards.markup import code, details, plain, repo_link, shown_rows, table
from hubmerge.cards.samples import samples_sentence
from hubmerge.report.accuracy import (
    AVERAGE_ACCURACY_DEFINITION,
    BACKWARD_TRANSFER_DEFINITION,
    FORGETTING_DEFINITION,
    SHARE_OF_OWN_DEFINITION,
    AccuracyMatrix,
    mean_or_none,
    percent,
)
from hubmerge.report.report import RunReport, TaskReport
from hubmerge.report.shown import shown
from hubmerge.support.text import short_commit
from merge_recipes.references import is_commit


def score_parts(
    report: RunReport, tasks: list[TaskReport], *, picture: str | None, kinds: str, whole: bool
) -> list[str]:
    """Return the parts of the section on scores.

    Args:
        report: the report, as `hubmerge.json` has it.
        tasks: the scored tasks.
        picture: the file with the picture of the accuracy matrix, None if there is none.
        kinds: sentences about task kinds that are plug-ins.
        whole: True for all steps and tasks, however many there are.
    """
    matrix = report.accuracy_matrix()
    parts = [
        "All values are in percent. *Own checkpoint* is the fine-tuned checkpoint of the task before it was merged.",
        _task_table(report, tasks, whole=whole),
    ]
    parts += filter(None, (samples_sentence(tasks), kinds))
    parts.append("`R[t][j]` is the accuracy on task j after step t. T is the last step.")
    parts.append(_measures(report, matrix))
    if picture is not None:
        parts.append(f"![Accuracy on every task after every step]({picture})")
    if len(matrix.steps) > 1:
        parts.append(_matrix(matrix, whole=whole))
    if not whole and None in matrix.shown_steps:
        parts.append(_extremes(matrix))
    parts += _other_metrics(report, whole=whole)
    return parts


def _task_table(report: RunReport, tasks: list[TaskReport], *, whole: bool) -> str:
    base, own = report.main_scores(report.base_scores), report.main_scores(report.own_scores)
    merged = report.main_scores(report.steps[-1].scores)

    def row(task: TaskReport) -> list[str]:
        values = [percent(scores.get(task.name)) for scores in (base, own, merged)]
        examples = "" if task.examples is None else f"{task.examples:,}"
        return [plain(task.name), _dataset(task), examples, plain(task.main_metric), *values]

    rows = shown_rows(tasks, row, whole=whole)
    averages = [_average([scores.get(task.name) for task in tasks]) for scores in (base, own, merged)]
    rows.append(["**average**", "", "", "", *(f"**{value}**" for value in averages)])
    header = ["task", "dataset", "examples", "metric", "base model", "own checkpoint", "this model"]
    return table(header, rows, "llrlrrr")


def _measures(report: RunReport, matrix: AccuracyMatrix) -> str:
    own = report.main_scores(report.own_scores)
    measures = [
        ("Average accuracy", percent(matrix.average(report.steps[-1].step)), AVERAGE_ACCURACY_DEFINITION),
        ("Backward transfer", percent(matrix.backward_transfer(), "+"), BACKWARD_TRANSFER_DEFINITION),
        ("Forgetting", percent(matrix.forgetting()), FORGETTING_DEFINITION),
        ("Share kept", percent(matrix.share_of_own(own)), SHARE_OF_OWN_DEFINITION),
    ]
    return table(["measure", "value", "definition"], [[a, b, code(c)] for a, b, c in measures], "lrl")


def _matrix(matrix: AccuracyMatrix, *, whole: bool) -> str:
    tasks: list[str] = [*matrix.seen(matrix.steps[-1])]
    if not whole:
        tasks = [task for part in shown(tasks) for task in part]
    rows = [
        ["…", *[""] * (len(tasks) + 1)]
        if step is None
        else [str(step), *(percent(matrix.value(step, task)) for task in tasks), percent(matrix.average(step))]
        for step in (matrix.steps if whole else matrix.shown_steps)
    ]
    content = table(["step", *map(plain, tasks), "average"], rows, "r" * (len(tasks) + 2))
    return details("Accuracy matrix (row: after step t, column: task)", content)


def _extremes(matrix: AccuracyMatrix) -> str:
    """Return a table with the best and the worst step of each task, for streams of which not all steps are shown."""
    tasks = [task for part in shown(matrix.seen(matrix.steps[-1])) for task in part]
    rows = []
    for task in tasks:
        if (found := matrix.extremes(task)) is not None:
            best, best_step, worst, worst_step = found
            rows.append([plain(task), percent(best), str(best_step), percent(worst), str(worst_step)])
    return details("Best and worst step of each task", table(["task", "best", "step", "worst", "step"], rows, "lrrrr"))


def _other_metrics(report: RunReport, *, whole: bool) -> list[str]:
    """Return a table of the metrics outside of the accuracy matrix, nothing if there are none."""

    def row(found: tuple[str, str, list[float | None]]) -> list[str]:
        task, metric, values = found
        return [plain(task), plain(metric), *("-" if value is None else f"{value:.4f}" for value in values)]

    rows = shown_rows(report.other_metrics(), row, whole=whole)
    header = ["task", "metric", "base model", "own checkpoint", "this model"]
    return [details("Other metrics", table(header, rows, "llrrr"))] if rows else []


def _dataset(task: TaskReport) -> str:
    parts = [repo_link(task.dataset, task.dataset, task.commit, kind="dataset")]
    parts.append(code(task.split if task.subset is None else f"{task.subset}/{task.split}"))
    if is_commit(task.commit):
        parts.append(f"at {code(short_commit(str(task.commit)))}")
    return " ".join(parts)


def _average(values: list[float | None]) -> str:
    mean = mean_or_none(values)
    return "-" if mean is None else percent(mean)
