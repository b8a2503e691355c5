"""Samples of tasks: a stream keeps the way in which its published steps drew the examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from hubmerge.errors import EvaluationError
from hubmerge.report.inputs import DataReport, SampleReport, TaskReport
from hubmerge.support.text import short_commit
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import HARNESS_KIND


def as_recorded(task: Task, recorded: Sequence[TaskReport]) -> Task:
    """Return a task that draws its examples as the recorded steps of its stream did.

    Steps of version 0.1.0 scored the first examples of a split, and their report does not name a sample. A stream that
    has them goes on like this, also with tasks of new steps, unless the recipe asks for another sample.

    Args:
        task: the task in the recipe.
        recorded: the tasks of the steps that are published or on disk.
    """
    source = task.dataset
    older = any(report.sampling is None for report in recorded)
    if not older or source.max_examples is None or source.model_fields_set & {"sample", "seed"}:
        return task
    return task.model_copy(update={"dataset": source.model_copy(update={"sample": "first"})})


def sample_report(source: DatasetReference, recorded: Sequence[TaskReport]) -> SampleReport | None:
    """Return the sample of a task for the report; None in a stream whose report names no samples."""
    if any(report.sampling is None for report in recorded) and not source.model_fields_set & {"sample", "seed"}:
        return None
    return _sample(source)


def _sample(source: DatasetReference) -> SampleReport:
    if source.max_examples is None:
        return SampleReport("all")
    if source.sample == "first":
        return SampleReport("first", source.max_examples)
    return SampleReport("balanced", source.max_examples, source.seed)


def check_sample(task: Task, recorded: Sequence[TaskReport]) -> None:
    """Check that a task is scored on the examples on which its recorded steps were scored.

    Raises:
        EvaluationError: the recipe asks for other examples, so that the scores of the steps could not be compared.
    """
    known = next((report for report in recorded if report.name == task.name), None)
    if known is None:
        return
    wanted = _sample(as_recorded(task, recorded).dataset)
    before = known.sampling
    if before is None:
        if not (task.dataset.model_fields_set & {"sample", "seed"}) or wanted.rule == "first":
            return
        before = SampleReport("first", known.examples)
    if wanted != before:
        raise EvaluationError(
            f"task {task.name}: the steps so far were scored on {before.text}, the recipe asks for {wanted.text}: the "
            "scores could not be compared",
            hint=f"write `dataset: {{{before.keys}}}`, or give the task another name",
        )


def data_error(
    task: Task, commits: Sequence[str], recorded: Sequence[TaskReport]
) -> tuple[tuple[str | int, ...], EvaluationError] | None:
    """Return an error if a task reads other data than those on which its recorded steps were scored.

    The error comes with its keys in the dataset.

    A repo of another name with an equal commit has equal data: it was moved.

    Args:
        task: the task in the recipe.
        commits: the commits of all repos and folders that it reads.
        recorded: the tasks of the steps that are published or on disk.
    """
    known = next((report for report in recorded if report.name == task.name), None)
    if known is None:
        return None
    source = task.dataset
    wanted = [DataReport(one.written_path, commit) for one, commit in zip(source.sources, commits, strict=True)]
    role = "judgements" if task.kind != HARNESS_KIND else "split"
    for number, (old, new) in enumerate(zip_longest(known.data, wanted)):
        if old is None or new is None or old.commit not in (None, new.commit):
            shown = (_shown(one, role if number else "") for one in (old, new))
            missing = ("more",) if role == "split" else ("qrels",)
            return missing if new is None else source.keys_of(number, "path"), _other_data(task, *shown)
    before = [(known.subset, known.split), *((one.subset, one.split) for one in known.more_data if one.split)]
    now = [(one.name, one.split) for one in source.scored]
    for number, (was, wants) in enumerate(zip(before, now, strict=False)):
        if was != wants:
            pair = (f"split {split}{'' if subset is None else f' of {subset}'}" for subset, split in (was, wants))
            return source.keys_of(number, "split" if was[1] != wants[1] else "name"), _other_data(task, *pair)
    return None


def _shown(data: DataReport | None, role: str) -> str:
    if data is None:
        return "the judgements beside the documents" if role != "split" else "no further split"
    return f"{'the judgements of ' if role == 'judgements' else ''}{data.path} at {short_commit(data.commit or '')}"


def _other_data(task: Task, before: str, wanted: str) -> EvaluationError:
    return EvaluationError(
        f"task {task.name}: the steps so far were scored on {before}, the recipe has {wanted}: the scores could not be "
        "compared",
        hint="restore the data set of the task, or give the task another name",
    )
