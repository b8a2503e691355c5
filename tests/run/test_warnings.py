"""Notes of a run and of its plan about the written model: rounding, layout, kept tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.checkpoints.families import make, save, tuned
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
FAMILY = "LlamaForCausalLM"


def write(folder: Path, base: Path, *models: Path, **changes: object) -> Path:
    recipe = {
        "merge_method": "opcm",
        "base_model": str(base),
        "models": [{"model": str(model), "name": model.name} for model in models],
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def test_warning_about_rounding_that_gives_the_base_model_back(hubmerge: Command, tmp_path: Path) -> None:
    base = save(make(FAMILY), tmp_path / "base")
    file = base / "model.safetensors"
    save_file({name: value.bfloat16() for name, value in load_file(file).items()}, file, {"format": "pt"})
    near = save(make(FAMILY), tmp_path / "near")
    values = {name: value.float() * (1 + 1e-6) for name, value in load_file(file).items()}
    save_file(values, near / "model.safetensors", {"format": "pt"})

    def run(name: str, **changes: object) -> tuple[str, list[str], str]:
        out = tmp_path / name
        recipe = write(tmp_path, base, near, **changes)
        status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / f"{name}-work", "--out", out)
        assert status == 0, errors
        [step] = json.loads((out / "hubmerge.json").read_text())["steps"]
        return output, step["warnings"], (out / "README.md").read_text()

    output, [warning], card = run("narrow")
    assert "the written model is in effect the base model; set out_dtype: float32 in the recipe" in warning
    assert f"warning: step 1: {warning}" in output.splitlines()
    assert "Step 1: rounding the written weights lost 100 % of the merged delta" in card
    assert next(line for line in card.splitlines() if line.startswith("| 1 | near | 1 |")).endswith("| 100 % |")
    output, warnings, card = run("wide", out_dtype="float32")
    assert warnings == []
    assert "warning: step 1" not in output
    assert "- rounding: distance of the written weights from the computed ones" in card


def test_plan_names_kept_tensors_and_memory(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None))
    status, text, errors = hubmerge("plan", recipe, "--verbose")
    assert status == 0, errors
    lines = text.splitlines()
    reason = lines.index(next(line for line in lines if line.endswith("  no checkpoint has text_model")))
    assert lines[reason + 1].startswith("               text_model.* (")
    assert "text_model.embeddings." in lines[reason + 1]
    assert "               text_projection.weight" in lines
    assert sum(line.startswith("memory   about ") for line in lines) == 1
    _, output, _ = hubmerge("plan", recipe, "--json")
    (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    unscored = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    _, output, _ = hubmerge("plan", unscored, "--json")
    (less,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
    assert 400_000_000 < less["memory_bytes"] < plan["memory_bytes"] < 2_000_000_000


def test_plan_shows_one_line_for_buffers_of_one_name(hubmerge: Command, tmp_path: Path) -> None:
    base = save(make(FAMILY), tmp_path / "base")
    file = base / "model.safetensors"
    values = load_file(file) | {f"extra{number}.position_ids": torch.arange(4) for number in range(5)}
    save_file(values, file, {"format": "pt"})
    status, text, errors = hubmerge(
        "plan", write(tmp_path, base, save(tuned(FAMILY, 1), tmp_path / "tuned")), "--verbose"
    )
    assert status == 0, errors
    lines = text.splitlines()
    first = lines.index("            5  position_ids is a buffer, not a parameter")
    assert lines[first + 1] == "               *.position_ids (5: extra0.position_ids, ...)"
    assert sum(line.strip().startswith(("*.position_ids", "extra")) for line in lines) == 1


def test_plan_and_card_name_a_layout_for_transformers_5_only(hubmerge: Command, tmp_path: Path) -> None:
    tower = "CLIPVisionModel"
    base, near = save(make(tower), tmp_path / "base"), save(tuned(tower, 1), tmp_path / "near")
    recipe = write(tmp_path, base, near, out_dtype="bfloat16")
    status, text, errors = hubmerge("plan", recipe, "--verbose")
    assert status == 0, errors
    [message] = [line.removeprefix("layout   ") for line in text.splitlines() if line.startswith("layout ")]
    assert message.startswith(
        "CLIPVisionModel, named as in the base model's files (embeddings.class_embedding, ...), bfloat16;"
    )
    assert message.endswith(
        "; these names load in transformers 5 only, transformers 4 expects the prefix vision_model."
    )
    assert f"layout {message} " in " ".join(hubmerge("plan", recipe)[1].split())
    assert hubmerge("run", recipe, "--out", tmp_path / "out")[0] == 0
    assert f"Weight files: {message}." in (tmp_path / "out" / "README.md").read_text().replace("\\_", "_")


def test_plan_names_a_layout_that_both_versions_read(hubmerge: Command, tmp_path: Path) -> None:
    base, near = save(make("CLIPModel"), tmp_path / "base"), save(tuned("CLIPModel", 1), tmp_path / "near")
    status, text, errors = hubmerge("plan", write(tmp_path, base, near), "--verbose")
    assert status == 0, errors
    assert "layout   CLIPModel, named as in the base model's files (logit_scale, ...), float32" in text.splitlines()


def test_plan_names_a_tensor_in_two_shards(hubmerge: Command, tmp_path: Path) -> None:
    base, near = save(make(FAMILY), tmp_path / "base"), save(tuned(FAMILY, 1), tmp_path / "tuned")
    values = load_file(near / "model.safetensors")
    (near / "model.safetensors").unlink()
    twice = next(iter(values))
    shards = {"model-00001-of-00002.safetensors": {twice: values[twice]}, "model-00002-of-00002.safetensors": values}
    for file, tensors in shards.items():
        save_file(tensors, near / file, {"format": "pt"})
    weight_map = dict.fromkeys(values, "model-00002-of-00002.safetensors")
    (near / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {**weight_map, twice: "model-00001-of-00002.safetensors"}})
    )
    status, text, errors = hubmerge("plan", write(tmp_path, base, near))
    assert status == 0, errors
    assert " ".join(text.split()).count(f"tensor {twice!r} is in more than one shard: read from the last one") == 1
