"""Errors with the place in the recipe that they are about."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hubmerge.errors import HubmergeError
from merge_recipes import LoadedRecipe
from merge_recipes.errors import KeyPath

Error = TypeVar("Error", bound=HubmergeError)


def located(error: Error, loaded: LoadedRecipe, path: KeyPath, *, at_key: bool = False) -> Error:
    """Return an error with the position of a key of the recipe in front of its message and in its fields.

    A recipe that is not a file, such as a dict in Python, has no positions: only the key is named.

    Args:
        error: the error.
        loaded: the recipe.
        path: the path of the key; if the recipe does not have it, the position is that of the keys around it.
        at_key: True for the position of the key, False for that of its value.
    """
    problem = loaded.document.problem(path, error.message, at_key=at_key)
    if problem.file is None or not Path(problem.file).is_file():
        problem = replace(problem, file=None, line=None, column=None)
    found = copy.copy(error)
    found.message = str(problem)
    found.args = (found.message,)
    if problem.file is not None:
        found.context = replace(error.context, file=problem.file, line=problem.line, column=problem.column)
    return found
