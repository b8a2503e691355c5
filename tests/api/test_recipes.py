"""Recipes as files and as dicts: both pass the same checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hubmerge

RECIPE: dict[str, Any] = {
    "merge_method": "opcm",
    "base_model": "me/base",
    "models": [{"model": "me/a", "name": "first"}, {"model": "me/b+me/lora", "parameters": {"alpha": 0.25}}],
    "parameters": {"alpha": [{"filter": "attn", "value": 0.7}, {"value": 1e-05}]},
    "publish": {"repo": "me/merged", "tags": ["yes", "1e3", "0o7", "ja: nein", "größe", "#x"]},
}


def write(folder: Path, recipe: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_dict_is_read_like_a_file(tmp_path: Path) -> None:
    assert hubmerge.load(RECIPE).recipe == hubmerge.load(write(tmp_path, RECIPE)).recipe


def test_the_text_of_a_dict_is_the_recipe(tmp_path: Path) -> None:
    loaded = hubmerge.load(RECIPE)
    (tmp_path / "again.yaml").write_text(loaded.text, encoding="utf-8")
    assert hubmerge.load(tmp_path / "again.yaml").recipe == loaded.recipe
    assert "merge_method: opcm\n" in loaded.text


def test_local_paths_of_a_dict_start_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = hubmerge.load({**RECIPE, "base_model": "./base"})
    assert loaded.recipe.base_model.path == str(tmp_path / "base")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"merge_method": "opmc"}, "merge_method"),
        ({"parameters": {"alpha": 2}}, "parameters.alpha"),
        ({"models": [{"model": "me/a", "parameters": {"alpha": "high"}}]}, "models[0].parameters.alpha"),
        ({"publish": {"repo": "me/merged", "step": "last"}}, "publish.step"),
    ],
)
def test_a_dict_has_the_problems_of_the_file(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    recipe = {**RECIPE, **change}
    with pytest.raises(hubmerge.RecipeError) as of_dict:
        hubmerge.load(recipe)
    with pytest.raises(hubmerge.RecipeError) as of_file:
        hubmerge.load(write(tmp_path, recipe))
    assert [(one.key, one.message) for one in of_dict.value.problems] == [
        (one.key, one.message) for one in of_file.value.problems
    ]
    assert str(of_dict.value).startswith(f"{key}: ")
    assert str(of_file.value).startswith(f"{tmp_path / 'recipe.yaml'}:")


def test_values_that_yaml_cannot_hold_are_refused() -> None:
    with pytest.raises(hubmerge.UsageError, match="YAML cannot hold"):
        hubmerge.load({**RECIPE, "seed": object()})


def test_check_names_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(hubmerge.RecipeError, match=r"^base_model: folder .*nowhere does not exist"):
        hubmerge.check({**RECIPE, "base_model": str(tmp_path / "nowhere")})


def test_check_counts_checkpoints_and_queries() -> None:
    checked = hubmerge.check({**RECIPE, "models": [{"model": "me/a"}, {"query": "me/base-*"}]})
    assert (checked.checkpoints, checked.queries) == (1, 1)
    assert str(checked) == "OK: opcm, 1 checkpoint + 1 query"


def test_lock_needs_a_file() -> None:
    with pytest.raises(hubmerge.UsageError, match="has no file"):
        hubmerge.lock(RECIPE)
