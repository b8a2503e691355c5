"""Which entry of the stream a task belongs to: it is scored from the step on that merges that entry."""

from __future__ import annotations

from merge_recipes.schema import Recipe, Task


def candidates(task: Task, entry_names: list[str]) -> list[str]:
    """Return the entries that a task may belong to: its `model`, else its namesake, else all that end in its name."""
    if task.model is not None:
        return [task.model]
    if task.name in entry_names:
        return [task.name]
    return [name for name in entry_names if name.endswith((f"_{task.name}", f"-{task.name}"))]


def task_entries(recipe: Recipe) -> dict[str, str | None]:
    """Return for each task the name of the entry that it belongs to.

    A task belongs to the entry that its key `model` names; else to the entry of its own name; else to the only entry
    whose name ends in `_` or `-` and its name. None stands for a task that belongs to no entry: it is scored after
    every step.
    """
    names = [entry.name for entry in recipe.entries]
    found: dict[str, str | None] = {}
    for task in recipe.evaluate.tasks if recipe.evaluate is not None else ():
        matches = candidates(task, names)
        found[task.name] = matches[0] if len(matches) == 1 else None
    return found
