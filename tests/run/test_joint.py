"""Recipes that merge all models at once: one step, published, extended by a step that is merged anew, verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file

from hubmerge import RecipeError, load, merge, merge_state_dicts, run
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


def report_of(repo: str, revision: str | None = None) -> dict[str, Any]:
    path = Path(hf_hub_download(repo, "hubmerge.json", revision=revision))
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def joint(stage: Stage, repo: str | None, count: int, **changes: Any) -> dict[str, Any]:
    names = tuple(stage.towers)[:count]
    keys = {"merge_method": "ties", "form": "joint", "parameters": {"weight": 0.5, "density": 0.5}, **changes}
    return stage.recipe(repo, entries=names, **keys)


def test_a_joint_merge_is_one_step_and_one_more_model_makes_the_next(
    stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    repo = "team/joint"
    status, output, errors = hubmerge("run", stage.write(tmp_path, joint(stage, repo, 2)))
    assert status == 0, errors
    first = report_of(repo)
    assert [len(step["inputs"]) for step in first["steps"]] == [2]
    assert (first["version"], set(first["own_scores"])) == (3, set(tuple(stage.towers)[:2]))
    assert set(first["steps"][0]["scores"]) == set(first["own_scores"])
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    assert "recomputed: the same bytes" in output

    other = tmp_path / "other"
    other.mkdir()
    whole = joint(stage, repo, 3, parameters={"weight": 0.3, "density": 0.5})
    whole["models"] = [whole["models"][2], *whole["models"][:2]]
    recipe = stage.write(other, whole)
    status, output, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "3 models at once  recomputed from all inputs, without step 1" in output
    status, output, errors = hubmerge("run", recipe, "--work-dir", str(other / "work"))
    assert status == 0, errors
    assert "recomputed from all 3 models, not from step 1" in output + errors
    second = report_of(repo)
    assert [len(step["inputs"]) for step in second["steps"]] == [2, 3]
    assert second["steps"][0] == first["steps"][0]
    assert {ref.name for ref in HfApi().list_repo_refs(repo).tags} == {"step-01", "step-02"}
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "merged anew from all its models, not from the step before it, step-01, which merged 2 models" in card
    assert every(tower in card for tower in stage.towers.values())
    for revision in ("step-01", "step-02"):
        status, output, errors = hubmerge("verify", f"{repo}@{revision}")
        assert status == 0, output + errors
    status, output, errors = hubmerge("run", recipe, "--work-dir", str(other / "work"))
    assert (status, len(report_of(repo)["steps"])) == (0, 2)


def test_changed_parameters_with_the_same_models_are_another_recipe(
    stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    repo = "team/joint-changed"
    plain = joint(stage, repo, 2, evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, plain))[0] == 0
    changed = stage.write(tmp_path, {**plain, "parameters": {"weight": 0.4, "density": 0.5}})
    status, _, errors = hubmerge("run", changed, "--work-dir", str(tmp_path / "other"))
    assert status != 0
    assert "its parameters differ from the recipe: weight" in errors
    status, _, errors = hubmerge("run", changed, "--replay", "--work-dir", str(tmp_path / "other"))
    assert status == 0, errors
    assert report_of(repo)["parameters"]["weight"] == 0.4
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    fewer = stage.write(tmp_path, joint(stage, repo, 1, evaluate=None))
    status, _, errors = hubmerge("run", fewer, "--work-dir", str(tmp_path / "third"))
    assert status != 0
    assert "is not in the recipe" in errors


def test_linear_with_the_base_listed_is_the_mean_of_both(stage: Stage, tmp_path: Path) -> None:
    base, name = stage.base, next(iter(stage.towers))
    keys = {
        "merge_method": "linear",
        "base_model": base,
        "models": [
            {"model": base, "parameters": {"weight": 0.5}},
            {"model": stage.towers[name], "parameters": {"weight": 0.5}},
        ],
    }
    run(keys, out=tmp_path / "mean", work_dir=tmp_path / "work", progress=None).finish()
    merged = load_file(tmp_path / "mean" / "model.safetensors")
    folder, tower = (Path(HfApi().snapshot_download(repo)) for repo in (base, stage.towers[name]))
    first, second = load_file(folder / "model.safetensors"), load_file(tower / "model.safetensors")
    shared = {own: value for key, value in second.items() if (own := f"vision_model.{key}") in first}
    assert len(shared) > 10
    assert every(((first[own] + value) / 2 - merged[own]).abs().max() < 1e-6 for own, value in shared.items())
    report = json.loads((tmp_path / "mean" / "hubmerge.json").read_text(encoding="utf-8"))
    assert [model["reference"] for model in report["steps"][0]["inputs"]] == [base, stage.towers[name]]


def test_towers_without_a_base_model_are_merged_and_extended_on_disk(
    stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    towers = list(stage.towers.values())
    keys: dict[str, Any] = {"merge_method": "linear", "models": [{"model": tower} for tower in towers[:2]]}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(keys), encoding="utf-8")
    status, _, errors = hubmerge("run", recipe, "--out", str(tmp_path / "out"))
    assert status == 0, errors
    keys["models"].append({"model": towers[2]})
    recipe.write_text(yaml.safe_dump(keys), encoding="utf-8")
    status, _, errors = hubmerge("run", recipe, "--out", str(tmp_path / "out"))
    assert status == 0, errors
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    assert [len(step["inputs"]) for step in report["steps"]] == [2, 3]
    models = [load_file(Path(HfApi().snapshot_download(tower)) / "model.safetensors") for tower in towers]
    expected = merge_state_dicts(None, models, method="linear")
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert every((expected[name] - merged[name]).abs().max() < 1e-6 for name in expected)


@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_random_methods_give_the_same_bytes_again(stage: Stage, tmp_path: Path, method: str) -> None:
    towers = list(stage.towers.values())[:2]
    parameters = {"weight": 0.5, "density": 0.4}
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        merge(stage.base, towers, out=tmp_path / folder, method=method, parameters=parameters, recipe={"seed": seed})
    first, again, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in "abc")
    assert first == again
    assert first != other


def test_a_seed_without_random_numbers_is_refused(stage: Stage) -> None:
    with pytest.raises(RecipeError, match="a seed has no effect"):
        load(joint(stage, None, 2, form=None, seed=1, evaluate=None))
