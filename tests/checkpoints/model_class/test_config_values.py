"""Configs with values that JSON does not have, read as transformers reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hubmerge.checkpoints import check_loads, weight_matrices
from hubmerge.checkpoints.checkpoint import first_architecture
from hubmerge.checkpoints.model_class.class_lookup import structure_only
from hubmerge.checkpoints.model_class.config_check import implausible_size
from hubmerge.checkpoints.model_class.model_class import ModelClass, find_model_class
from hubmerge.checkpoints.tensors import TensorInfo
from tests.checkpoints.model_class.sweep import built, config_types

LAYERS = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
ATTENTION = {**LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1, "mamba_expand": 2}
EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 2, "shared_intermediate_size": 8}

CONFIGS: dict[str, dict[str, Any]] = {
    "BambaForCausalLM": {**ATTENTION, **MAMBA, "attn_layer_indices": [1]},
    "GraniteMoeHybridForCausalLM": {**ATTENTION, **MAMBA, **EXPERTS, "layer_types": ["mamba", "attention"]},
    "Mamba2ForCausalLM": {**LAYERS, "num_heads": 4, "head_dim": 8, "state_size": 4, "n_groups": 1, "expand": 2},
}
INFINITY = {"__float__": "Infinity"}


def made(name: str, folder: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Return the config.json that transformers writes for a tiny model of this class, and its tensors."""
    model_class = getattr(transformers, name)
    config = model_class.config_class(**CONFIGS[name])
    config.architectures = [name]
    config.save_pretrained(folder)
    with torch.device("meta"):
        parameters = dict(model_class._from_config(config).named_parameters())
    content = json.loads((folder / "config.json").read_text())
    return content, {
        key: TensorInfo(key, tuple(value.shape), value.dtype, "", 0, 0) for key, value in parameters.items()
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_an_infinite_number_as_transformers_writes_it(name: str, tmp_path: Path) -> None:
    config, tensors = made(name, tmp_path)
    assert INFINITY in config["time_step_limit"]
    rule = weight_matrices(config, tensors)
    assert rule.no_class is None
    assert name in rule.description
    linear = {key for key in tensors if key.endswith("_proj.weight")}
    assert linear
    assert linear <= rule.matrices
    shapes = {key: info.shape for key, info in tensors.items()}
    assert check_loads(config, shapes, shapes, "base") == ()


def test_3d_experts_beside_an_infinite_number(tmp_path: Path) -> None:
    config, tensors = made("GraniteMoeHybridForCausalLM", tmp_path)
    rule = weight_matrices(config, tensors)
    experts = {key for key, info in tensors.items() if len(info.shape) == 3 and "block_sparse_moe" in key}
    assert len(experts) == 4
    assert experts <= rule.matrices
    assert {key for key in rule.matrices if "shared_mlp" in key}
    plain = {**config, "time_step_limit": [0.0, math.inf]}
    assert weight_matrices(plain, tensors) == rule


@pytest.mark.parametrize(
    ("written", "value"), [("Infinity", math.inf), ("-Infinity", -math.inf), ("NaN", math.nan), ("other", None)]
)
def test_floats_that_json_does_not_have(written: str, value: float | None) -> None:
    tagged = {"__float__": written}
    config = {"top": tagged, "nested": {"limit": [0.0, tagged]}, "two": {"__float__": written, "more": 1}}
    expected = tagged if value is None else value
    found = structure_only(config)
    assert repr(found) == repr({"top": expected, "nested": {"limit": [0.0, expected]}, "two": config["two"]})


@pytest.mark.parametrize(
    "config",
    [
        {"moe_layers": [*range(48)]},
        {"num_attention_heads_per_layer": [48] * 48},
        {"embed_dim_per_stage": [144, 288, 576, 1152]},
        {"num_experts": 16384},
        {"depths": [2, 2, 18, 2]},
        {"text_config": {"kv_source_layers": [*range(90), None]}},
    ],
)
def test_lists_of_layers_and_sizes_of_layers_are_plausible(config: dict[str, Any]) -> None:
    assert implausible_size(config, ["a"] * 150) is None


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"moe_layers": [0, 10**9]}, "moe_layers = 1000000000"),
        ({"num_layers": [1] * 5000}, "num_layers = 5000"),
        ({"depths": [100, 100]}, "depths = 200"),
        ({"num_experts": 10**6}, "num_experts = 1000000"),
        ({"num_labels": 10**7}, "num_labels = 10000000"),
    ],
)
def test_implausible_sizes(config: dict[str, Any], problem: str) -> None:
    assert implausible_size(config, ["a"] * 150) == f"{problem}, but the model has 150 tensors"


@pytest.mark.slow
@pytest.mark.usefixtures("empty_cache")
def test_every_class_that_transformers_builds_is_built_from_its_config() -> None:
    """Default configs of all types, written and read by transformers; the shapes of all parameters are compared."""
    failed, number = {}, 0
    for model_type in config_types():
        one = built(model_type)
        if one is None:
            continue
        number += 1
        parameters = one.model.named_parameters(remove_duplicate=False)
        shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
        found = find_model_class(one.config, shapes)
        if not isinstance(found, ModelClass):
            failed[model_type] = found.reason
        elif found.shapes != shapes:
            failed[model_type] = "other shapes"
    assert failed == {}
    assert number > 600


@pytest.mark.parametrize(
    "architectures",
    ["LlamaForCausalLM", ["LlamaForCausalLM"], ["OwnLlama", "LlamaForCausalLM"], [None, "LlamaForCausalLM"]],
)
def test_the_class_is_the_first_that_transformers_has(architectures: Any) -> None:
    config = {"model_type": "llama", **ATTENTION, "architectures": architectures}
    found = find_model_class(config, ["lm_head.weight"])
    assert isinstance(found, ModelClass)
    assert found.name.startswith("LlamaForCausalLM in transformers")
    assert first_architecture(config) in {"LlamaForCausalLM", "OwnLlama"}


@pytest.mark.parametrize("architectures", [None, [], [None], 3])
def test_a_config_without_a_class(architectures: Any) -> None:
    config = {"model_type": "llama", **ATTENTION, "architectures": architectures}
    assert first_architecture(config) is None
    found = find_model_class(config, ["lm_head.weight"])
    assert isinstance(found, ModelClass)
    assert found.name.startswith("LlamaModel in transformers")
