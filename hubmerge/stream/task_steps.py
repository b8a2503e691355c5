"""The step of the first score of each task."""

from __future__ import annotations

from hubmerge.stream.stream import Stream
from merge_recipes import task_entries


def first_steps(stream: Stream) -> dict[str, int]:
    """Return for each task the step of its first score: the step of its entry, 1 if it has no entry."""
    steps = {
        stream.entries[entry - 1].name: step
        for step in range(stream.length, 0, -1)
        for entry in stream.entries_of(step)
    }
    return {task: steps.get(entry, 1) if entry else 1 for task, entry in task_entries(stream.recipe).items()}
