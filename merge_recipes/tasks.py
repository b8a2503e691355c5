"""The entry of the stream that a task belongs to. The task is scored from the step on that merges this entry."""

from __future__ import annotations

from merge_recipes.schema import Recipe, Task


def candidates(task: Task, entry_names: list[str]) -> list[str]:
    """Return the entries that a task may belong to: its `model`, `head` or namesake, or all that end in its name."""
    if task.model is not None:
        return [task.model]
    if task.head in entry_names:
        return [str(task.head)]
    if task.name in entry_names:
        return [task.name]
    return [name for name in entry_names if name.endswith((f"_{task.name}", f"-{task.name}"))]


def task_entries(recipe: Recipe) -> dict[str, str | None]:
    """Return the name of the entry that each task belongs to, or None for a task that is scored after every step.

    A task belongs to the entry that its key `model` or else `head` names, else to the entry with the name of the task,
    else to the only entry whose name ends in `_` or `-` and the name of the task. One for validation belongs to none.
    """
    names = [entry.name for entry in recipe.entries]
    found: dict[str, str | None] = {}
    for task in recipe.all_tasks:
        matches = [] if task.validation else candidates(task, names)
        found[task.name] = matches[0] if len(matches) == 1 else None
    return found
