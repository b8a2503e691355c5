"""Stacked layers that are published, verified, extended and fetched by ranges."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


def stacked(stage: Stage, repo: str | None, ranges: list[tuple[int, list[int]]], **changes: Any) -> dict[str, Any]:
    """Return a recipe that stacks layers of the towers with these numbers."""
    towers = list(stage.towers.values())
    slices = [{"sources": [{"model": towers[number], "layer_range": layers}]} for number, layers in ranges]
    recipe: dict[str, Any] = {"merge_method": "passthrough", "slices": slices, **changes}
    return recipe if repo is None else {**recipe, "publish": {"repo": repo}}


def test_a_stacked_model_is_published_verified_and_extended(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    repo = "team/stacked"
    recipe = stage.write(tmp_path, stacked(stage, repo, [(0, [0, 1]), (1, [0, 1]), (0, [0, 1])]))
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, output + errors
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    assert "recomputed: the same bytes" in output
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert [(row["first"], row["last"]) for row in report["steps"][0]["layers"]] == [(0, 0), (1, 1), (2, 2)]
    longer = stage.write(tmp_path, stacked(stage, repo, [(0, [0, 1]), (1, [0, 1]), (2, [0, 1]), (1, [0, 1])]))
    status, output, errors = hubmerge("run", longer, "--work-dir", str(tmp_path / "other"))
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert [len(step["layers"]) for step in report["steps"]] == [3, 4]
    config = json.loads(Path(hf_hub_download(repo, "config.json")).read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == 4
    changed = stage.write(tmp_path, stacked(stage, repo, [(0, [0, 1]), (2, [0, 1]), (1, [0, 1])]))
    status, output, errors = hubmerge("run", changed, "--work-dir", str(tmp_path / "third"))
    assert status != 0
    assert "slices" in errors


def test_layers_of_towers_are_stacked_inside_of_the_whole_model_and_scored(
    stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    repo, names = "team/stacked-towers", list(stage.towers)[:2]
    whole = {"base_model": stage.base, "stack": "vision_model", "evaluate": stage.recipe(None)["evaluate"]}
    recipe = stacked(stage, repo, [(0, [0, 1]), (1, [0, 1])], **whole)
    recipe["evaluate"]["tasks"] = [task for task in recipe["evaluate"]["tasks"] if task["name"] in names]
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipe))
    assert status == 0, output + errors
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8"))
    assert set(report["steps"][0]["scores"]) == set(names) == set(report["base_scores"])
    assert report["own_scores"] == {}
    merged = load_file(hf_hub_download(repo, "model.safetensors"))
    base = load_file(hf_hub_download(stage.base, "model.safetensors"))
    first, second = (
        load_file(hf_hub_download(tower, "model.safetensors")) for tower in list(stage.towers.values())[:2]
    )
    for name, value in merged.items():
        if name.startswith("vision_model.encoder.layers.1."):
            assert (value == second[name.removeprefix("vision_model.").replace("layers.1.", "layers.0.")]).all()
        elif name.startswith("vision_model.") and "post_layernorm" not in name:
            assert (value == first[name.removeprefix("vision_model.")]).all()
        elif name.startswith("text_model."):
            assert (value == base[name]).all()
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors


def test_only_the_layers_that_are_stacked_are_fetched_by_ranges(
    stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    ranges = [(0, [0, 1]), (1, [0, 1])]
    found = []
    for name, changes in {"whole": {}, "ranges": {"fetch": "ranges"}}.items():
        recipe = stage.write(tmp_path, stacked(stage, None, ranges, **changes))
        out = tmp_path / name
        status, output, errors = hubmerge("run", recipe, "--out", str(out), "--work-dir", str(tmp_path / f"w-{name}"))
        assert status == 0, output + errors
        found.append(load_file(out / "model.safetensors"))
    assert found[0].keys() == found[1].keys()
    assert every((found[0][name] == found[1][name]).all() for name in found[0])
