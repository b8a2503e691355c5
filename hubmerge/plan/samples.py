"""Samples of tasks: a stream keeps the way in which its published steps drew the examples."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.errors import EvaluationError
from hubmerge.report.inputs import SampleReport, TaskReport
from merge_recipes import DatasetReference, Task


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
