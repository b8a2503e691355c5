"""The steps of the first score of each task, and of the first choice of a read-out."""

from __future__ import annotations

from hubmerge.evaluation.own_head import BASE_HEAD
from hubmerge.stream.stream import Stream
from merge_recipes import Recipe, task_entries


def first_steps(stream: Stream) -> dict[str, int]:
    """Return for each task the step of its first score: the step of its entry, 1 if it has no entry."""
    steps = {
        stream.entries[entry - 1].name: step
        for step in range(stream.length, 0, -1)
        for entry in stream.entries_of(step)
    }
    return {task: steps.get(entry, 1) if entry else 1 for task, entry in task_entries(stream.recipe).items()}


def first_choice(recipe: Recipe) -> int:
    """Return the first step whose read-out is chosen: that of the entry whose own head scores the task, else 1."""
    read = recipe.read
    head = next((task.head for task in recipe.all_tasks if read is not None and task.name == read.on), None)
    names = [entry.name for entry in recipe.stream()]
    return names.index(head) + 1 if head not in {None, BASE_HEAD} and head in names else 1
