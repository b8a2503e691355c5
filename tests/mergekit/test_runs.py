"""Runs of recipes in mergekit's form on tiny language models in local folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hubmerge

LAYERS = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models base, a and b, and an adapter for them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=16, num_hidden_layers=LAYERS, max_position_embeddings=16, **sizes)
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder / name)
    adapter = folder / "adapter"
    adapter.mkdir()
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file(
        {f"{name}.lora_A.weight": torch.randn(2, 8), f"{name}.lora_B.weight": torch.randn(8, 2)},
        adapter / "adapter_model.safetensors",
    )
    keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(keys), encoding="utf-8")
    return folder


def merged(models: Path, folder: Path, text: str) -> dict[str, torch.Tensor]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(text.replace("DIR", str(models)), encoding="utf-8")
    hubmerge.run(recipe, out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return load_file(folder / "out" / "model.safetensors")


def tensors(models: Path, name: str, *, adapted: bool = False) -> dict[str, torch.Tensor]:
    found = load_file(models / name / "model.safetensors")
    if adapted:
        change = {
            name.split(".")[-2]: one
            for name, one in load_file(models / "adapter" / "adapter_model.safetensors").items()
        }
        found["model.layers.1.self_attn.q_proj.weight"] += 2 * change["lora_B"] @ change["lora_A"]
    return found


SLICES = """\
merge_method: slerp
base_model: DIR/base
slices:
  - sources:
      - {model: DIR/base, layer_range: [0, 3]}
      - {model: DIR/a, layer_range: [0, 3]}
parameters:
  t: [0, 0.5, 1]
"""


def test_slices_of_whole_models_with_a_gradient_are_merged_layer_by_layer(models: Path, tmp_path: Path) -> None:
    result, base, other = merged(models, tmp_path, SLICES), tensors(models, "base"), tensors(models, "a")
    assert set(result) == set(base)
    for name, value in result.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        ends = {0: base, 2: other}
        if layer in ends:
            assert torch.allclose(value, ends[layer][name], atol=1e-6), name
        else:
            assert not torch.allclose(value, base[name]) or torch.equal(base[name], other[name]), name


def test_a_layer_range_that_is_not_the_whole_model_is_refused_with_its_line(models: Path, tmp_path: Path) -> None:
    with pytest.raises(
        hubmerge.RecipeError, match=r"layers 0 to 2 are not all layers of the models, which have 3"
    ) as found:
        merged(models, tmp_path, SLICES.replace("[0, 3]", "[0, 2]"))
    (problem,) = found.value.problems
    assert (problem.line, problem.key) == (5, "slices[0].sources[0].layer_range")
    assert problem.hint is not None
    assert "[0, 3]" in problem.hint


def test_an_adapter_on_the_base_model_is_part_of_it(models: Path, tmp_path: Path) -> None:
    lists = "models: [{model: DIR/base+DIR/adapter}, {model: DIR/a, parameters: {weight: 0.5}}]\n"
    text = f"merge_method: dare_linear\nbase_model: DIR/base+DIR/adapter\n{lists}tensors: {{exclude: [lm_head.*]}}\n"
    result = merged(models, tmp_path, text)
    own, other = tensors(models, "base", adapted=True), tensors(models, "a")
    assert {value.dtype for value in result.values()} == {torch.float32}
    for name, value in result.items():
        expected = own[name] if name == "lm_head.weight" else (own[name] + other[name]) / 2
        assert torch.allclose(value, expected, atol=1e-5), name
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    assert report["base_model"]["reference"].endswith("/adapter")


def test_a_first_model_with_an_adapter_lends_its_files(models: Path, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [{model: DIR/base+DIR/adapter}, {model: DIR/a}]\n"
    result = merged(models, tmp_path, text)
    own, other = tensors(models, "base", adapted=True), tensors(models, "a")
    assert {value.dtype for value in result.values()} == {torch.float32}
    assert all(torch.allclose(value, (own[name] + other[name]) / 2, atol=1e-5) for name, value in result.items())
