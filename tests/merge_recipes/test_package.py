"""The public names of merge_recipes, its imports, and its errors."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

import merge_recipes
from merge_recipes import InvalidReferenceError, Problem, RecipeError, RecipeSyntaxError


def test_every_name_of_all_can_be_loaded() -> None:
    assert list(merge_recipes.__all__) == sorted(merge_recipes.__all__)
    for name in merge_recipes.__all__:
        assert getattr(merge_recipes, name).__module__.startswith("merge_recipes.")
    with pytest.raises(AttributeError, match="has no attribute 'Recipes'"):
        merge_recipes.Recipes  # type: ignore[attr-defined]  # noqa: B018 - reading it raises


def test_importing_it_imports_no_large_library() -> None:
    code = "import sys, json, merge_recipes; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    loaded = {name.partition(".")[0] for name in json.loads(output)}
    assert not loaded & {"torch", "numpy", "transformers", "huggingface_hub", "httpx", "requests", "hubmerge"}
    assert not loaded & {"pydantic", "yaml"}, "each name is loaded when it is first used"


def test_errors_can_be_pickled_and_have_exit_code_two() -> None:
    problem = Problem("wrong", "do it right", "a.yaml", 3, 4, "x.y")
    for kind in (RecipeError, RecipeSyntaxError, InvalidReferenceError):
        copy = pickle.loads(pickle.dumps(kind([problem])))
        assert type(copy) is kind
        assert copy.problems == (problem,)
        assert copy.exit_code == 2


def test_the_text_of_a_problem() -> None:
    assert str(Problem("wrong", "do it right", "a.yaml", 3, 4, "x.y")) == "a.yaml:3:4: x.y: wrong\n  hint: do it right"
    assert str(Problem("wrong")) == "wrong"
