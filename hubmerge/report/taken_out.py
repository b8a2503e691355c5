"""Tasks whose checkpoints were taken out of the merge again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hubmerge.report.inputs import TaskReport
from hubmerge.report.step import StepReport


def taken_out_tasks(
    tasks: Sequence[TaskReport], steps: Sequence[StepReport], own_scores: Collection[str]
) -> dict[str, int]:
    """Return the tasks whose checkpoints are not in the last model any more, with the steps that took them out.

    A task without a checkpoint of its own stays, and so does one whose checkpoint was merged again, or of which the
    model has another commit.

    Args:
        tasks: the tasks of a report.
        steps: its steps.
        own_scores: the names of the tasks with scores of their own checkpoints.
    """
    out = {step.revokes: step.step for step in steps if step.revokes is not None}
    merged = {step.reference for step in steps if step.revokes is None and step.name not in out}
    merged |= {name for step in steps for name in step.replaces}
    entries = {task.name: steps[task.step - 1] for task in tasks if task.name in own_scores and task.step <= len(steps)}
    return {
        task: out[entry.name]
        for task, entry in entries.items()
        if entry.name in out and merged.isdisjoint((entry.name, entry.reference))
    }
