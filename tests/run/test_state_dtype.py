"""Streams with states in float32: planned, published, extended, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download

from merge_recipes import Lock
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]


def test_states_in_float32_are_published_extended_and_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo, names = repo_name("merged"), tuple(stage.towers)
    keys = stage.recipe(repo, entries=names[:2], merge_method="wudi", evaluate=None, state_dtype="float32")
    status, output, errors = hubmerge("plan", stage.write(tmp_path, keys))
    assert "in float32" in output, errors
    assert hubmerge("run", stage.write(tmp_path, keys))[0] == 0
    whole = stage.write(tmp_path, {**keys, "models": stage.recipe(repo)["models"]})
    status, output, errors = hubmerge("run", whole, "--work-dir", tmp_path / "elsewhere")
    assert status == 0, output + errors
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert report["state_dtype"] == "float32"
    lock = Lock.from_yaml(Path(hf_hub_download(repo, "hubmerge.lock.yaml")).read_text(encoding="utf-8"))
    assert lock.state_dtype == "float32"
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "published in float32" in card
    double = stage.write(tmp_path, {key: value for key, value in keys.items() if key != "state_dtype"})
    status, _, errors = hubmerge("run", double)
    assert status == 3
    assert "state_dtype" in errors


@pytest.mark.parametrize("method", ["linear", "karcher"])
def test_a_joint_merge_has_no_state(hubmerge: Command, tmp_path: Path, method: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge_method: {method}\nform: joint\nbase_model: a/b\nstate_dtype: float32\n"
        "models:\n  - {model: c/x}\n  - {model: c/y}\n",
        encoding="utf-8",
    )
    status, _, errors = hubmerge("check", recipe)
    assert status == 2
    assert "without a state" in errors
