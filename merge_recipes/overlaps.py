"""Overlaps of the task that chooses a read-out with the tasks that are scored."""

from __future__ import annotations

from merge_recipes.dataset import DatasetReference
from merge_recipes.schema import Recipe


def choice_overlap(recipe: Recipe) -> str | None:
    """Return a sentence if the task of `read` is scored too, or has the split of a task that is; None otherwise."""
    read = recipe.read
    task = None if read is None else next((one for one in recipe.all_tasks if one.name == read.on), None)
    if task is None:
        return None
    if not task.validation:
        return (
            f"the read-out is chosen on the task {task.name}, which is scored too: its score is favored by the choice"
        )
    for other in recipe.scored_tasks:
        scored = {_split(one) for one in other.dataset.scored}
        source = next((one for one in task.dataset.scored if _split(one) in scored), None)
        if source is not None:
            split = f"the split {source.split} of {source.written_path}"
            return (
                f"the read-out is chosen on {split}, on which the task {other.name} is scored: its score is favored by "
                "the choice"
            )
    return None


def _split(dataset: DatasetReference) -> tuple[str, str | None, str, str | None]:
    return dataset.path, dataset.name, dataset.split, dataset.revision
