"""Tests of weight matrices, for classes of transformers and for tensors that no class has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import MatrixRule, open_checkpoint, weight_matrices
from hubmerge.checkpoints.model_class.model_class import layers
from hubmerge.checkpoints.tensors import TensorInfo
from tests.checkpoints.models import CONFIGS, model, save

EMBEDDINGS = ("embed", "wte", "wpe", "shared", "relative_attention_bias")


def rule_for(folder: Path) -> MatrixRule:
    checkpoint = open_checkpoint(folder)
    return weight_matrices(checkpoint.config, checkpoint.tensors)


def info(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[str, TensorInfo]:
    return name, TensorInfo(name, shape, dtype, "model.safetensors", 0, 0)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "MixtralForCausalLM"])
def test_every_untied_linear_layer_is_a_matrix(tmp_path: Path, name: str) -> None:
    from transformers.pytorch_utils import Conv1D

    whole = model(name)
    tables = {id(module.weight) for module in whole.modules() if isinstance(module, torch.nn.Embedding)}
    linear = {
        id(module.weight): tuple(module.weight.shape)
        for module in whole.modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and id(module.weight) not in tables
    }
    checkpoint = open_checkpoint(save(name, tmp_path))
    rule = weight_matrices(checkpoint.config, checkpoint.tensors)
    assert sorted(checkpoint.tensors[matrix].shape for matrix in rule.matrices) == sorted(linear.values())
    assert name in rule.description
    assert "does not have" not in rule.description
    assert not [matrix for matrix in rule.matrices for word in EMBEDDINGS if word in matrix]


def test_clip_by_name(tmp_path: Path) -> None:
    rule = rule_for(save("CLIPModel", tmp_path))
    layer = "vision_model.encoder.layers.1"
    for name in ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
        assert rule.is_matrix(f"{layer}.{name}.weight")
        assert not rule.is_matrix(f"{layer}.{name}.bias")
    assert rule.is_matrix("visual_projection.weight")
    for name in (
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
        "vision_model.post_layernorm.weight",
        "logit_scale",
    ):
        assert not rule.is_matrix(name)


def test_both_layouts_of_a_tower_have_the_same_matrices(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save("CLIPVisionModel", tmp_path))
    plain = weight_matrices(checkpoint.config, checkpoint.tensors).matrices
    prefixed = dict(info(f"vision_model.{name}", *found.shape) for name, found in checkpoint.tensors.items())
    assert weight_matrices(checkpoint.config, prefixed).matrices == {f"vision_model.{name}" for name in plain}


@pytest.mark.parametrize(
    ("name", "alias", "owner"),
    [
        ("GPT2LMHeadModel", "lm_head.weight", "transformer.wte.weight"),
        ("BertForMaskedLM", "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("T5ForConditionalGeneration", "lm_head.weight", "shared.weight"),
    ],
)
def test_ties(tmp_path: Path, name: str, alias: str, owner: str) -> None:
    checkpoint = open_checkpoint(save(name, tmp_path))
    rule = weight_matrices(checkpoint.config, checkpoint.tensors)
    assert rule.ties[alias] == owner
    stored_twice = {**checkpoint.tensors, alias: checkpoint.tensors[owner]}
    rule = weight_matrices(checkpoint.config, stored_twice)
    assert not rule.is_matrix(alias)
    assert not rule.is_matrix(owner)


def test_an_untied_head_is_a_matrix(tmp_path: Path) -> None:
    rule = rule_for(save("LlamaForCausalLM", tmp_path))
    assert rule.is_matrix("lm_head.weight")
    assert rule.ties == {}


def test_experts_that_the_class_joins_are_matrices_in_the_files(tmp_path: Path) -> None:
    rule = rule_for(save("MixtralForCausalLM", tmp_path))
    assert rule.is_matrix("model.layers.0.block_sparse_moe.experts.1.w2.weight")
    assert not rule.is_matrix("model.layers.0.input_layernorm.weight")
    assert "12 of 29 tensors that it does not have" in rule.description


def test_the_joined_projection_of_attention() -> None:
    shapes, found, transposed = layers(torch.nn.ModuleDict({"attn": torch.nn.MultiheadAttention(8, 2)}))
    assert found == {"attn.in_proj_weight", "attn.out_proj.weight"}
    assert shapes["attn.in_proj_weight"] == (24, 8)
    assert transposed == set()
    _, found, _ = layers(torch.nn.MultiheadAttention(8, 2, kdim=4, vdim=6))
    assert found == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}


TENSORS = dict(
    [
        info("layers.0.attn.weight", 8, 8),
        info("layers.0.attn.bias", 8),
        info("layers.0.conv.weight", 8, 8, 3),
        info("token_embedding.weight", 20, 8),
        info("pos_embed", 20, 8),
        info("wte.weight", 20, 8),
        info("free_table", 8, 8),
        info("counts.weight", 8, 8, dtype=torch.int64),
    ]
)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "no model_type"),
        ({"model_type": "no-such-model"}, "no-such-model"),
        ({"model_type": "bert", "hidden_size": "wide"}, "bert"),
        ({"model_type": "bert", "num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000, but"),
        ({"model_type": "clip", "vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers = 1000000000, but"),
    ],
)
def test_without_a_class_matrices_are_found_by_shape_and_name(config: dict[str, Any], reason: str) -> None:
    rule = weight_matrices(config, TENSORS)
    assert rule.matrices == {"layers.0.attn.weight"}
    assert reason in rule.description
    assert "2-D" in rule.description


def test_a_class_that_has_none_of_the_tensors_is_no_class() -> None:
    rule = weight_matrices({"model_type": "bert", "num_hidden_layers": 1}, TENSORS)
    assert rule.matrices == {"layers.0.attn.weight"}
    assert "BertModel" in (rule.no_class or "")
    assert "has none of its tensors" in rule.description


def test_code_named_in_a_config_is_not_run(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(save("CLIPVisionModel", tmp_path))
    config = {
        **checkpoint.config,
        "architectures": ["CLIPVisionModel"],
        "auto_map": {"AutoModel": "elsewhere/repo--modeling.Model", "AutoConfig": "elsewhere/repo--config.Config"},
        "attn_implementation": "kernels-elsewhere/attention",
        "_attn_implementation": "kernels-elsewhere/attention",
        "quantization_config": {"quant_method": "no-such-method"},
    }
    expected = weight_matrices(checkpoint.config, checkpoint.tensors)
    assert weight_matrices(config, checkpoint.tensors) == expected


@pytest.mark.parametrize("architectures", [["MyOwnClip"], ["torch"], ["CLIPVisionConfig"], None, [3]])
def test_an_unknown_architecture_is_built_by_its_model_type(tmp_path: Path, architectures: Any) -> None:
    checkpoint = open_checkpoint(save("CLIPVisionModel", tmp_path))
    rule = weight_matrices({**checkpoint.config, "architectures": architectures}, checkpoint.tensors)
    assert rule == weight_matrices(checkpoint.config, checkpoint.tensors)
