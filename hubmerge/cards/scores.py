"""Parts of a card on the scores: the headline, gains and losses, measures, the accuracy matrix, other metrics."""

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
from hubmerge.support.text import counted, short_commit
from merge_recipes.references import is_commit


def in_model(tasks: list[TaskReport], matrix: AccuracyMatrix) -> list[TaskReport]:
    """Return the tasks that count: without those whose checkpoints were taken out of the model."""
    counted = {*matrix.counted(matrix.steps[-1])} if matrix.rows else set()
    return [task for task in tasks if task.name in counted or task.name not in matrix.taken_out]


def headline(report: RunReport, tasks: list[TaskReport], matrix: AccuracyMatrix) -> list[str]:
    """Return the line of the average accuracy beside those of the base model and of the own checkpoints.

    There is none if no task counts.
    """
    tasks = in_model(tasks, matrix)
    if not tasks:
        return []
    base, own, merged = (_mean(scores, tasks) for scores in _three(report))
    metric = "Accuracy" if {task.main_metric for task in tasks} == {"accuracy"} else "Mean score"
    over = f"the mean of {counted(len(tasks), 'task')}" if len(tasks) > 1 else plain(tasks[0].name)
    compared = [f"base model {base}" if base != "-" else "", f"own checkpoints {own}" if own != "-" else ""]
    kept = percent(matrix.share_of_own(report.main_scores(report.own_scores)))
    compared.append(f"{kept} % of the own checkpoints kept" if kept != "-" else "")
    told = ", ".join(filter(None, compared))
    return [f"**{metric} {merged} %**, {over}" + (f" ({told})." if told else ".")]


def gains(report: RunReport, tasks: list[TaskReport], matrix: AccuracyMatrix) -> str:
    """Return the table of the tasks: base model, own checkpoint, this model, and its gain and loss."""
    base, own, merged = _three(report)
    counted = in_model(tasks, matrix)

    def row(task: TaskReport) -> list[str]:
        first, best, now = (scores.get(task.name) for scores in (base, own, merged))
        values = [*map(percent, (first, best)), f"**{percent(now)}**", _difference(now, first), _difference(now, best)]
        name = plain(task.name) + ("" if task in counted else " (taken out)")
        return [name, plain(task.main_metric), *values]

    rows = shown_rows(tasks, row, whole=False)
    means = [mean_or_none([scores.get(task.name) for task in counted]) for scores in (base, own, merged)]
    values = [*map(percent, means), _difference(means[2], means[0]), _difference(means[2], means[1])]
    rows.append(["**mean**", "", *(f"**{value}**" for value in values)])
    header = ["task", "metric", "base model", "own checkpoint", "this model", "against base", "against own"]
    text = "In percent and points. *Own checkpoint* is the fine-tuned checkpoint of the task before it was merged."
    text += f" {_NOT_COUNTED}\n\n" if matrix.remark else "\n\n"
    return text + table(header, rows, "llrrrrr")


_NOT_COUNTED = (
    "A task whose checkpoint was taken out is still scored, but counts in no mean and in neither backward transfer nor "
    "forgetting."
)


def folded_scores(report: RunReport, tasks: list[TaskReport], matrix: AccuracyMatrix, *, kinds: str) -> list[str]:
    """Return the folded parts: data sets and examples, measures, the accuracy matrix, other metrics.

    Args:
        report: the report, as `hubmerge.json` has it.
        tasks: the scored tasks.
        matrix: the accuracy matrix.
        kinds: sentences about task kinds that are plug-ins.
    """
    rows = shown_rows(tasks, lambda task: [plain(task.name), _dataset(task), _examples(task)], whole=False)
    notes = "".join(f"\n\n{text}" for text in (samples_sentence(tasks), kinds) if text)
    measures = f"`R[t][j]` is the accuracy on task j after step t. T is the last step.\n\n{_measures(report, matrix)}"
    measures += f"\n\n{plain(matrix.remark[:1].upper() + matrix.remark[1:])}." if matrix.remark else ""
    parts = [
        details("Data sets and examples", table(["task", "dataset", "examples"], rows, "llr") + notes),
        details("Average accuracy, backward transfer, forgetting", measures),
    ]
    if len(matrix.steps) > 1:
        parts.append(_matrix(matrix, whole=False))
    if None in matrix.shown_steps:
        parts.append(_extremes(matrix))
    return [*parts, *_other_metrics(report, whole=False)]


def _three(report: RunReport) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Return the scores of the base model, of the own checkpoints and of the merged model."""
    scores = (report.base_scores, report.own_scores, report.steps[-1].scores)
    base, own, merged = map(report.main_scores, scores)
    return base, own, merged


def _mean(scores: dict[str, float], tasks: list[TaskReport]) -> str:
    return _average([scores.get(task.name) for task in tasks])


def _difference(value: float | None, other: float | None) -> str:
    return "-" if value is None or other is None else percent(value - other, "+")


def _examples(task: TaskReport) -> str:
    return "" if task.examples is None else f"{task.examples:,}"


def score_parts(
    report: RunReport, tasks: list[TaskReport], *, picture: str | None, kinds: str, whole: bool
) -> list[str]:
    """Return the parts of the section on scores in cards before form 6.

    Args:
        report: the report, as `hubmerge.json` has it.
        tasks: the scored tasks.
        picture: the file with the picture of the accuracy matrix, None if there is none.
        kinds: sentences about task kinds that are plug-ins.
        whole: True for all steps and tasks, however many there are.
    """
    matrix = report.accuracy_matrix(counts_all=True)
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
    base, own, merged = _three(report)

    def row(task: TaskReport) -> list[str]:
        values = [percent(scores.get(task.name)) for scores in (base, own, merged)]
        return [plain(task.name), _dataset(task), _examples(task), plain(task.main_metric), *values]

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
    parts.append(_split(task.subset, task.split))
    if is_commit(task.commit):
        parts.append(f"at {code(short_commit(str(task.commit)))}")
    before = task.dataset
    for one in task.more_data:
        if one.split is not None and one.path == before:
            parts.append(f"and {_split(one.subset, one.split)}")
            continue
        commit = f" at {code(short_commit(str(one.commit)))}" if is_commit(one.commit) else ""
        split = "" if one.split is None else f" {_split(one.subset, one.split)}"
        parts.append(f"with {repo_link(one.path, one.path, one.commit, kind='dataset')}{split}{commit}")
        before = one.path
    return " ".join(parts)


def _split(subset: str | None, split: str) -> str:
    return code(split if subset is None else f"{subset}/{split}")


def _average(values: list[float | None]) -> str:
    mean = mean_or_none(values)
    return "-" if mean is None else percent(mean)
