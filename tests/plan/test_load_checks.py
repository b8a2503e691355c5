"""Checks before a merge that the merged model loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import open_checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.run.model_folder import check_written
from tests.checkpoints.families import make, save, tuned
from tests.checkpoints.merging import read_all

Command = Callable[..., tuple[int, str, str]]
WEIGHTS = "model.safetensors"


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path, Path]]:
    """Return a function that writes base model, checkpoint and recipe: `pair("LlamaForCausalLM")`."""

    def create(family: str, **recipe: Any) -> tuple[Path, Path, Path]:
        base, checkpoint = save(make(family), tmp_path / "base"), save(tuned(family, 1), tmp_path / "tuned")
        written = {"merge_method": "opcm", "base_model": str(base), "models": [{"model": str(checkpoint)}], **recipe}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(written))
        return base, checkpoint, tmp_path / "recipe.yaml"

    return create


def test_unused_tensors_of_the_base_model_are_noted(
    hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    base, checkpoint, recipe = pair("BertForSequenceClassification")
    for folder in (base, checkpoint):
        edit_weights(folder, lambda values: {**values, "cls.seq_relationship.bias": torch.ones(2)})
    edit_weights(base, lambda values: {**values, "extra.flag": torch.ones(3, dtype=torch.bool)})
    message = "BertForSequenceClassification does not use cls.seq_relationship.bias, extra.flag of "
    status, output, errors = hubmerge("plan", recipe)
    assert (status, errors) == (0, "")
    assert f"loading  {message}{base}; they are written like all others" in output
    status, output, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert (status, errors) == (0, "")
    assert message in output
    merged = read_all(tmp_path / "out")
    assert set(merged) == set(load_file(base / WEIGHTS))
    assert torch.equal(merged["extra.flag"], torch.ones(3, dtype=torch.bool))


def test_json_plan_contains_loading_notes(hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]]) -> None:
    base, _, recipe = pair("LlamaForCausalLM")
    for loading, change in (([], {}), (["not checked"], {"architectures": ["OurModel"]})):
        edit_config(base, **change)
        status, output, _ = hubmerge("plan", recipe, "--json")
        assert status == 0
        (plan,) = [event for line in output.splitlines() if (event := json.loads(line))["event"] == "plan"]
        assert [part for part, line in zip(loading, plan["loading"], strict=True) if part in line] == loading


@pytest.mark.parametrize(
    "config",
    [
        None,
        {"architecture": "vit_tiny", "num_classes": 3},
        {"architectures": ["OurModel"], "model_type": "ours", "auto_map": {"AutoModel": "modeling.OurModel"}},
    ],
    ids=["no config.json", "timm", "code of its own"],
)
def test_model_unknown_to_transformers_is_merged(
    config: dict[str, Any] | None, hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    base, checkpoint, recipe = pair("ViTForImageClassification", tensors={"exclude": ["classifier.*"]})
    for folder in (base, checkpoint):
        (folder / "config.json").unlink()
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config))
    status, output, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert (status, errors) == (0, "")
    assert "loading of the merged model is not checked: " in output
    merged, expected = read_all(tmp_path / "out"), load_file(checkpoint / WEIGHTS)
    for name in set(expected) - {"classifier.weight", "classifier.bias"}:
        torch.testing.assert_close(merged[name], expected[name], rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_model_that_does_not_load_is_refused_before_the_merge(
    command: str, hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]]
) -> None:
    base, _, recipe = pair("LlamaForCausalLM")
    edit_config(base, num_hidden_layers=2)
    status, output, errors = hubmerge(command, recipe)
    assert status == 4
    assert errors.startswith(
        f"hubmerge: {base}/config.json: describes layers that the weights do not have: model.layers.1\n"
    )
    assert "hint: restore the config.json that was saved with the weights" in errors
    assert "step 1" not in output


def test_base_model_saved_inside_a_wrapper_is_refused(
    hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]]
) -> None:
    base, _, recipe = pair("BertForSequenceClassification")
    edit_weights(base, lambda values: {f"module.{name}": value for name, value in values.items()})
    status, _, errors = hubmerge("plan", recipe)
    assert status == 4
    assert errors.startswith(f"hubmerge: {base}: all tensor names begin with 'module.', so BertForSeq")
    assert "hint: save the model inside the wrapper" in errors


def test_tower_that_does_not_load_alone_is_refused(
    hubmerge: Command, pair: Callable[..., tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    _, checkpoint, recipe = pair("CLIPModel", publish={"repo": "local/tower", "model": "tower"})
    save(tuned("CLIPVisionModel", 1), tmp_path / "tower")
    edit_config(tmp_path / "tower", num_hidden_layers=2)
    recipe.write_text(recipe.read_text().replace(str(checkpoint), str(tmp_path / "tower")))
    status, _, errors = hubmerge("plan", recipe)
    assert status == 4
    assert f"hubmerge: `publish: {{model: tower}}`: {tmp_path / 'tower'}/config.json: describes layers" in errors
    assert "hint: write `publish: {model: full}`" in errors


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "missing"])
def test_written_weights_must_match_the_plan(change: str, tmp_path: Path) -> None:
    folder = save(make("LlamaForCausalLM"), tmp_path / "merged")
    with open_checkpoint(folder) as planned:
        specs = [info.spec for info in planned.tensors.values()]
    check_written(folder, specs)

    def damage(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        value = values.pop("lm_head.weight")
        changed = {"name": value, "shape": value[1:].clone(), "dtype": value.half()}
        if change in changed:
            values["lm_head.weights" if change == "name" else "lm_head.weight"] = changed[change]
        return values

    edit_weights(folder, damage)
    with pytest.raises(CheckpointError, match=r"does not match the plan: tensor 'lm_head\.weight' differs"):
        check_written(folder, specs)
