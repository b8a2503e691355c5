"""Recipes with several modules: parts of a model that are merged from other models or with other parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hubmerge
from tests.mergekit.oracle import merged_by_mergekit, needs_mergekit
from tests.mergekit.test_dialect import parse, problems, remarks

Tensors = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the encoder-decoder models base, a and b."""
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("towers")
    sizes = {"vocab_size": 16, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2}
    config = T5Config(num_layers=2, num_decoder_layers=3, feed_forward_proj="gated-gelu", **sizes)
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        T5ForConditionalGeneration(config).save_pretrained(folder / name)
    return folder


def merged(towers: Path, folder: Path, text: str) -> tuple[dict[str, torch.Tensor], Tensors]:
    """Return the merged model, and the models."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(text.replace("DIR", str(towers)), encoding="utf-8")
    hubmerge.run(recipe, out=folder / "out", work_dir=folder / "work", progress=None).finish()
    inputs = {name: load_file(towers / name / "model.safetensors") for name in ("base", "a", "b")}
    return load_file(folder / "out" / "model.safetensors"), inputs


def position(name: str) -> float:
    """Return the position of a tensor of the decoder in its three layers."""
    parts = name.split(".")
    return int(parts[2]) / 2 if parts[1] == "block" else 0.0


WEIGHTS = """\
merge_method: task_arithmetic
base_model: DIR/base
modules:
  encoder: {models: [{model: DIR/a, parameters: {weight: 0.5}}]}
  decoder:
    models: [{model: DIR/a, parameters: {weight: [0, 1]}}, {model: DIR/b}]
    parameters: {weight: 0.25}
parameters: {weight: 7}
"""


def test_modules_have_models_and_weights_of_their_own(towers: Path, tmp_path: Path) -> None:
    result, inputs = merged(towers, tmp_path, WEIGHTS)
    assert {name.split(".")[0] for name in result} == {"encoder", "decoder", "shared"}
    for name, value in result.items():
        base, a, b = (inputs[one][name] for one in ("base", "a", "b"))
        expected = {
            "encoder": base + 0.5 * (a - base),
            "decoder": base + position(name) * (a - base) + 0.25 * (b - base),
            "shared": base,
        }[name.split(".")[0]]
        assert torch.allclose(value, expected, atol=1e-6), name


def test_passthrough_takes_each_module_from_its_model(towers: Path, tmp_path: Path) -> None:
    modules = "modules: {encoder: {models: [{model: DIR/a}]}, default: {models: [{model: DIR/b}]}}\n"
    result, inputs = merged(towers, tmp_path, f"merge_method: passthrough\nbase_model: DIR/base\n{modules}")
    for name, value in result.items():
        assert torch.equal(value, inputs["a" if name.startswith("encoder") else "b"][name]), name


def test_modules_of_one_model_can_differ_in_parameters_and_the_rest_has_filters(towers: Path, tmp_path: Path) -> None:
    text = """\
merge_method: slerp
base_model: DIR/base
modules:
  encoder: {models: [{model: DIR/a}], parameters: {t: 0}}
  default: {models: [{model: DIR/a}], parameters: {t: [{filter: layer_norm, value: 1}]}}
parameters: {t: 0}
"""
    result, inputs = merged(towers, tmp_path, text)
    for name, value in result.items():
        owner = "a" if "layer_norm" in name and not name.startswith("encoder") else "base"
        assert torch.allclose(value, inputs[owner][name], atol=1e-6), name


MODULES = "merge_method: {}\nbase_model: me/base\nmodules:\n  vision_tower: {}\n  text_decoder: {}\n"
ONE, OTHER = "{models: [{model: me/a}]}", "{models: [{model: me/b}]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MODULES.format("slerp", ONE, OTHER), "r.yaml:4:3: modules: modules with different models need a method with"),
        (MODULES.format("karcher", ONE, "{slices: []}"), "modules.text_decoder: slices in one of several modules"),
        (MODULES.format("linear", ONE, "{}"), "modules.text_decoder: models are missing"),
        (MODULES.format("linear", ONE, "{models: [{model: me/a, weight: 1}]}"), "models[0].weight: unknown key"),
        (MODULES.format("linear", ONE, "{models: [{model: me/a}], x: 1}"), "modules.text_decoder.x: unknown key"),
        (
            MODULES.format("passthrough", "{models: [{model: me/a}, {model: me/b}]}", ONE),
            "passthrough takes 1 model for each module, got 2",
        ),
        (
            MODULES.format("linear", "{models: [{model: me/a, parameters: {weight: [{value: 1}]}}]}", ONE),
            "r.yaml:4:62: modules.vision_tower.models[0].parameters.weight: filters in the module vision_tower",
        ),
        (MODULES.format("linear", ONE, ONE) + "  default: " + ONE, "both mean all other tensors"),
        (
            MODULES.format("dare_linear", "{models: [{model: me/a, parameters: {weight: x}}]}", ONE),
            "r.yaml:4:62: modules.vision_tower.models[0].parameters.weight",
        ),
        (
            "merge_method: linear\ntensors: {include: ['*']}\n"
            + MODULES.format("linear", ONE, OTHER).partition("\n")[2].replace("text_decoder", "decoder"),
            "tensors: the modules say which tensors are merged",
        ),
    ],
)
def test_what_modules_cannot_express_names_its_line(text: str, expected: str) -> None:
    assert expected in problems(text)


def test_passthrough_of_modules_is_remarked_on() -> None:
    (remark,) = remarks(parse(MODULES.format("passthrough", ONE, OTHER)))
    assert "r.yaml:1:1: merge_method: passthrough of several modules is merged by linear" in remark


@pytest.mark.slow
@needs_mergekit
def test_modules_give_what_mergekit_gives(towers: Path, tmp_path: Path) -> None:
    listed = "models: [{model: DIR/a, parameters: {weight: 0.5}}"
    text = WEIGHTS.replace(listed, listed + ", {model: DIR/b, parameters: {weight: 0}}")
    ours, _ = merged(towers, tmp_path, text + "dtype: float32\n")
    theirs = merged_by_mergekit(tmp_path)
    shared = {name for name in theirs if name.split(".")[0] in {"encoder", "decoder"} and "embed" not in name}
    assert len(shared) > 50
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in shared) < 3e-6
