"""Runs of recipes in mergekit's form on tiny language models in local folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hubmerge
from tests.checks import every
from tests.mergekit.oracle import check_equals_mergekit, needs_mergekit

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


TIES = """\
merge_method: ties
base_model: DIR/base
models:
  - {model: DIR/base}
  - {model: DIR/a, parameters: {weight: 0.5, density: 0.5}}
"""


@pytest.mark.parametrize("method", ["ties", "dare_ties", "task_arithmetic", "della_linear"])
def test_a_listed_base_model_needs_no_weight_in_a_plan(models: Path, tmp_path: Path, method: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(TIES.replace("DIR", str(models)).replace("ties", method, 1), encoding="utf-8")
    plan = hubmerge.plan(recipe, progress=None)
    assert not plan.to_dict()["warnings"]
    alone = recipe.read_text(encoding="utf-8").replace(f"  - {{model: {models}/base}}\n", "")
    recipe.write_text(alone, encoding="utf-8")
    assert hubmerge.plan(recipe, progress=None).to_dict()["memory_bytes"] <= plan.to_dict()["memory_bytes"]


def test_a_run_names_as_next_only_what_the_method_can_do(models: Path, tmp_path: Path) -> None:
    extend = "extend: add a model at the end of the recipe, and run it again"
    for text, extends in ((TIES, True), (SLICES, False)):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(text.replace("DIR", str(models)), encoding="utf-8")
        run = hubmerge.run(recipe, work_dir=tmp_path / "work", progress=None)
        run.finish()
        assert (extend in [one.purpose for one in run.next_steps]) is extends


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


@pytest.mark.parametrize(
    "method", ["task_arithmetic\nform: stream\nparameters: {scaling: 0.5}", "weight_average", "opcm"]
)
def test_an_adapter_on_the_base_model_is_part_of_it_for_methods_that_merge_one_after_another(
    models: Path, tmp_path: Path, method: str
) -> None:
    text = f"merge_method: {method}\nbase_model: DIR/base+DIR/adapter\nmodels: [{{model: DIR/a}}, {{model: DIR/b}}]\n"
    result = merged(models, tmp_path, text + "tensors: {exclude: [lm_head.*]}\n")
    base = tensors(models, "base", adapted=True)
    others = [tensors(models, name) for name in ("a", "b")]
    assert {value.dtype for value in result.values()} == {torch.float32}
    assert torch.equal(result["lm_head.weight"], base["lm_head.weight"])
    (tmp_path / "folder").mkdir()
    save_file(base, tmp_path / "folder" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "folder" / "config.json").write_bytes((models / "base" / "config.json").read_bytes())
    plain = merged(models, tmp_path / "folder", text.replace("DIR/base+DIR/adapter", str(tmp_path / "folder")))
    # OPCM multiplies the rounding of the adapted tensors in `plain`.
    tolerance = 1e-3 if method == "opcm" else 1e-5
    for name in result.keys() - {"lm_head.weight"}:
        assert torch.allclose(result[name], plain[name], atol=tolerance), name
        if method != "opcm":
            mean = base[name] + sum(other[name] - base[name] for other in others) / 2
            assert torch.allclose(result[name], mean, atol=1e-5), name
    report = json.loads((tmp_path / "out" / "hubmerge.json").read_text(encoding="utf-8"))
    assert report["base_model"]["reference"].endswith("/adapter")


def test_an_adapted_tensor_that_is_not_merged_keeps_the_change_of_the_adapter(models: Path, tmp_path: Path) -> None:
    text = "merge_method: weight_average\nbase_model: DIR/base+DIR/adapter\nmodels: [{model: DIR/a}]\n"
    result = merged(models, tmp_path, text + "tensors: {exclude: ['*q_proj*']}\n")
    base = tensors(models, "base", adapted=True)
    assert every(torch.allclose(result[name], base[name], atol=1e-6) for name in base if "q_proj" in name)


def test_a_first_model_with_an_adapter_lends_its_files(models: Path, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [{model: DIR/base+DIR/adapter}, {model: DIR/a}]\n"
    result = merged(models, tmp_path, text)
    own, other = tensors(models, "base", adapted=True), tensors(models, "a")
    assert {value.dtype for value in result.values()} == {torch.float32}
    assert every(torch.allclose(value, (own[name] + other[name]) / 2, atol=1e-5) for name, value in result.items())


BESIDE_MERGEKIT = {
    "gradients in filters": SLICES.replace("t: [0, 0.5, 1]", "t: [{filter: mlp, value: [1, 0.2]}, {value: [0.1, 1]}]"),
    "levels": """\
merge_method: task_arithmetic
base_model: DIR/base
slices:
  - sources:
      - {model: DIR/base, layer_range: [0, 3]}
      - {model: DIR/a, layer_range: [0, 3], parameters: {weight: [{filter: mlp, value: [0, 0.6, 0.1]}]}}
      - {model: DIR/b, layer_range: [0, 3]}
    parameters: {weight: [{filter: self_attn, value: [0.7, 0.2]}]}
parameters: {weight: [0.3, 0.9], normalize: 1, int8_mask: true}
""",
    "one filter": """\
merge_method: linear
models:
  - {model: DIR/a, parameters: {weight: [1, 0.5, 0.25]}}
  - {model: DIR/b, parameters: {weight: {value: [0.5, 1], filter: proj}}}
parameters: {weight: 0.2}
""",
    "switches": """\
merge_method: ties
base_model: DIR/base
models:
  - {model: DIR/a, parameters: {weight: 0.5, density: [1, 0.5]}}
  - {model: DIR/b, parameters: {weight: [0.1, 0.5, 0.1], density: 0.5}}
parameters: {normalize: 0, rescale: 1, lambda: 0.9}
""",
}


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("text", BESIDE_MERGEKIT.values(), ids=BESIDE_MERGEKIT)
def test_gradients_levels_and_slices_give_what_mergekit_gives(models: Path, tmp_path: Path, text: str) -> None:
    ours = merged(models, tmp_path, text + "dtype: float32\n")
    check_equals_mergekit(ours, tmp_path)
