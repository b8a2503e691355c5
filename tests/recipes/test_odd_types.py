"""Recipes whose keys have values of an odd type: every one is a mistake in the recipe, never an internal error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hubmerge.api.recipes import load
from merge_recipes import RecipeError

TASK = {"name": "x", "kind": "zero-shot-image-classification", "dataset": {"path": "a/b"}, "metrics": ["accuracy"]}
STREAM: dict[str, Any] = {
    "merge_method": "opcm",
    "base_model": "a/b",
    "models": [{"model": "c/d", "name": "x", "parameters": {"alpha": 0.5}}],
    "form": "stream",
    "order": "listed",
    "dtype": "float32",
    "tensors": {"include": ["a"]},
    "evaluate": {"tasks": [TASK]},
    "read": {
        "choose": [{"method": "opcm", "parameters": {"others": "mean"}}, {"method": "opcm"}],
        "on": "x",
        "metric": "accuracy",
        "best": "highest",
    },
    "publish": {"repo": "a/z", "license": "mit", "tags": ["a"], "sign": {"key": "k"}, "max_shard_size": "5GB"},
}
JOINT: dict[str, Any] = {
    "merge_method": "linear",
    "form": "joint",
    "models": [{"model": "a/b", "parameters": {"weight": 1}}, {"model": "a/c"}],
}


def key_paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each key and of each item of a list."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from key_paths(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], odd: object) -> Any:
    """Return a copy with another value at a path."""
    if not path:
        return odd
    changed = value.copy()
    changed[path[0]] = replaced(value[path[0]], path[1:], odd)
    return changed


@pytest.mark.parametrize("odd", [[["a"]], {"a": [1]}, {1: None}, None], ids=["list", "mapping", "number key", "empty"])
@pytest.mark.parametrize("recipe", [STREAM, JOINT], ids=["stream", "joint"])
def test_a_method_of_an_odd_type_is_a_mistake_in_the_recipe(recipe: dict[str, Any], odd: object) -> None:
    with pytest.raises(RecipeError, match="merge_method"):
        load({**recipe, "merge_method": odd})


@pytest.mark.parametrize("odd", [[["a"]], {"a": [1]}, {1: None}], ids=["list", "mapping", "number key"])
@pytest.mark.parametrize("recipe", [STREAM, JOINT], ids=["stream", "joint"])
def test_a_value_of_an_odd_type_is_a_mistake_in_the_recipe(recipe: dict[str, Any], odd: object) -> None:
    load(recipe)
    paths = [path for path in key_paths(recipe) if path[-1] not in {"parameters", "sign"}]
    assert len(paths) > 5
    for path in paths:
        with pytest.raises(RecipeError):
            load(yaml.safe_load(yaml.safe_dump(replaced(recipe, path, odd))))
