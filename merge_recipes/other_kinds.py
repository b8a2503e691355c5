"""Files that are something else than they are read as: a study, a recipe, or a recipe of another program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from merge_recipes.errors import Problem
from merge_recipes.read_yaml import Document

_MOE = ("this is a recipe of mergekit-moe, which builds mixtures of experts", "mergekit-moe {file} OUT")
_PROGRAMS: Mapping[str, tuple[str, str]] = {
    "experts": _MOE,
    "gate_mode": _MOE,
    "genome": ("this is a recipe of mergekit-evolve, which searches for parameters", "mergekit-evolve {file} ..."),
    "layer_sources": ("this is a recipe of bakllama, which stacks layers", "write the layers as `slices`"),
}
"""Keys of files without a merge method, which belong to other programs of mergekit: what the file is, and a hint."""


def of_other_kind(document: Document, data: Mapping[str, Any], keys: Collection[str]) -> Problem | None:
    """Return the problem of a file that was taken for one of another kind, None if it is what it is read as.

    Args:
        document: the file.
        data: its keys and values.
        keys: the keys of the kind that it is read as.
    """
    file = document.file or "recipe.yaml"
    if "methods" in keys and "merge_method" in data and "recipe" not in data:
        hint = f"write a file with `recipe: ./{Path(file).name}` and `methods`"
        return document.problem(("merge_method",), "this is a recipe, not a study", hint, at_key=True)
    if "merge_method" not in keys or "merge_method" in data:
        return None
    if {"recipe", "methods"} <= data.keys():
        return document.problem(("methods",), "this is a study, not a recipe", f"hubmerge study {file}", at_key=True)
    key = next((key for key in data if key in _PROGRAMS), None)
    if key is None:
        return None
    message, hint = _PROGRAMS[key]
    return document.problem((key,), message, hint.format(file=file), at_key=True)
