"""Local models and datasets of a recipe whose folders do not exist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_recipes import LoadedRecipe, ModelReference, Problem


def without_position(problem: Problem) -> Problem:
    """Return a problem without file, line and column."""
    return replace(problem, file=None, line=None, column=None)


def missing_folders(loaded: LoadedRecipe) -> Iterator[Problem]:
    """Yield the local models and datasets of a recipe whose folders do not exist."""
    from merge_recipes import StreamEntry

    recipe = loaded.recipe
    models: list[tuple[tuple[str | int, ...], ModelReference]] = [(("base_model",), recipe.base_model)]
    for index, entry in enumerate(recipe.models):
        if isinstance(entry, StreamEntry):
            references = (entry.model, entry.model.adapter)
            models += [(("models", index, "model"), one) for one in references if one is not None]
    tasks = recipe.evaluate.tasks if recipe.evaluate is not None else ()
    datasets = [
        (("evaluate", "tasks", index, "dataset", *task.dataset.keys_of(number, "path")), source)
        for index, task in enumerate(tasks)
        for number, source in enumerate(task.dataset.sources)
    ]
    needed = [
        *((place, one.path, "model") for place, one in models if one.is_local and one.stage is None),
        *((place, dataset.path, "dataset") for place, dataset in datasets if dataset.is_local),
    ]
    contents = {"model": "config.json and weights", "dataset": "data files"}
    for place, folder, kind in needed:
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for names that are too long
            hint = f"a local {kind} is a folder with {contents[kind]}; relative paths start from the recipe's folder"
            problem = loaded.document.problem(place, f"folder {folder} does not exist", hint)
            yield problem if loaded.path.is_file() else without_position(problem)
