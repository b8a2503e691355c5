"""Buffers that are known by their names: statistics are averaged, and what has no mean is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import hubmerge
from hubmerge.checkpoints import MergePlan, align, make_plan, open_checkpoint, weight_matrices
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import write_folder

BODY = {"body.weight": torch.eye(4), "body.bias": torch.ones(4)}
ONES, MATRIX = torch.ones(4), torch.ones(4, 4)
OLD, NEW = "c.weight", "c.parametrizations.weight"

STATISTICS: dict[str, tuple[dict[str, torch.Tensor], set[str]]] = {
    "batch norm": (
        {"n.running_mean": ONES, "n.running_var": ONES, "n.num_batches_tracked": torch.tensor(3)},
        {"n.running_mean", "n.running_var"},
    ),
    "evolved norm": ({"n.running_var": ONES, "n.weight": ONES}, {"n.running_var"}),
    "moving moments": ({"n.moving_mean": ONES, "n.moving_variance": ONES}, {"n.moving_mean", "n.moving_variance"}),
    "normalizer": ({"inputs.mean": MATRIX, "inputs.std": MATRIX}, {"inputs.mean", "inputs.std"}),
    "latents": ({"latents_mean": ONES, "latents_std": ONES}, {"latents_mean", "latents_std"}),
    "codebook": (
        {"q.embed": MATRIX, "q.embed_avg": MATRIX, "q.cluster_size": ONES},
        {"q.embed", "q.embed_avg", "q.cluster_size"},
    ),
    "older codebook": ({"q._ema_w": MATRIX, "q._ema_cluster_size": ONES}, {"q._ema_w", "q._ema_cluster_size"}),
    "router": ({"layers.0.gate.e_score_correction_bias": ONES}, {"layers.0.gate.e_score_correction_bias"}),
    "other router": ({"layers.0.mlp.expert_bias": ONES}, {"layers.0.mlp.expert_bias"}),
    "copy of a moving average": (
        {"ema.n.running_mean": ONES, "ema.n.running_var": ONES},
        {"ema.n.running_mean", "ema.n.running_var"},
    ),
    # The same words in names of weights:
    "bayesian weights": ({"l.weight_mean": MATRIX, "l.weight_std": MATRIX}, set()),
    "heads of an encoder": ({"mean.weight": MATRIX, "std.weight": MATRIX}, set()),
    "other shapes": ({"x.mean": ONES, "x.std": MATRIX}, set()),
    "variance alone": ({"x.running_var": torch.ones(3)}, set()),
    "weight norm": ({"c.weight_g": ONES, "c.weight_v": MATRIX}, set()),
}

FIXED: dict[str, tuple[dict[str, torch.Tensor], set[str]]] = {
    "spectral norm": (
        {f"{OLD}_orig": MATRIX, f"{OLD}_u": ONES, f"{OLD}_v": ONES},
        {f"{OLD}_u", f"{OLD}_v"},
    ),
    "parametrized spectral norm": (
        {f"{NEW}.original": MATRIX, f"{NEW}.0._u": ONES, f"{NEW}.0._v": ONES},
        {f"{NEW}.0._u", f"{NEW}.0._v"},
    ),
    "observer": (
        {"l.activation_post_process.min_val": -ONES, "l.activation_post_process.scale": ONES},
        {"l.activation_post_process.min_val", "l.activation_post_process.scale"},
    ),
    "weight observer": ({"l.weight_fake_quant.scale": ONES}, {"l.weight_fake_quant.scale"}),
    "names of vectors alone": ({"x.a_u": ONES, "x.a_v": ONES}, set()),
}


def planned(folder: Path, tensors: dict[str, torch.Tensor], less: set[str] = frozenset()) -> MergePlan:  # type: ignore[assignment]
    base = open_checkpoint(write_folder(folder / "base", BODY | tensors, {}), "base")
    kept = {name: tensor for name, tensor in tensors.items() if name not in less}
    other = open_checkpoint(write_folder(folder / "other", BODY | kept, {}), "other")
    rule = weight_matrices(base.config, base.tensors)
    return make_plan(base, [align(base, other, buffers=rule.buffers, spare=rule.spare)], rule)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_without_a_class(tmp_path: Path, name: str) -> None:
    tensors, expected = STATISTICS[name]
    plan = planned(tmp_path, tensors)
    assert {tensor.name for tensor in plan.averaged} == expected
    assert {"body.weight", "body.bias"} <= {tensor.name for tensor in plan.merged} - expected


@pytest.mark.parametrize("name", FIXED)
def test_buffers_without_a_mean_are_kept(tmp_path: Path, name: str) -> None:
    tensors, expected = FIXED[name]
    plan = planned(tmp_path, tensors)
    assert {tensor.name for tensor in plan.kept} == expected
    assert not [
        tensor.reason for tensor in plan.kept if not tensor.reason.endswith("belongs to other values of its module")
    ]
    lacking = planned(tmp_path / "lacking", tensors, expected)
    assert {tensor.name for tensor in lacking.kept} == expected


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "opcm", "linear"])
def test_a_statistic_without_a_class_stays_positive(method: str) -> None:
    base = BODY | {"q.embed": MATRIX, "q.cluster_size": 3 * ONES}
    models = [BODY | {"q.embed": MATRIX * k, "q.cluster_size": 0.5 * k * ONES} for k in (1, 2, 3)]
    merged = hubmerge.merge_state_dicts(base, models, method=method, **_weights(method))
    assert torch.equal(merged["q.cluster_size"], torch.ones(4))
    assert torch.equal(merged["q.embed"], 2 * MATRIX)


def _weights(method: str) -> dict[str, Any]:
    if method == "linear":
        return {"recipe": {"form": "joint"}, "own_parameters": [{"weight": 1.0}] * 3}
    return {"parameters": {"scaling": 1.0}} if method == "task_arithmetic" else {}


@pytest.mark.parametrize("method", ["task_arithmetic", "linear"])
def test_a_temperature_does_not_change_its_sign(method: str) -> None:
    def merged(start: float, end: float) -> torch.Tensor:
        base, model = BODY | {"temperature": torch.tensor(start)}, BODY | {"temperature": torch.tensor(end)}
        if method == "linear":
            keys = {"recipe": {"form": "joint"}, "own_parameters": [{"weight": 2.0}, {"weight": -1.0}]}
            models = [model, base]
        else:
            keys, models = {"parameters": {"scaling": 1.0}}, [model, model]
        return hubmerge.merge_state_dicts(base, models, method=method, **keys)["temperature"]  # type: ignore[arg-type]

    with pytest.raises(CheckpointError, match="'temperature' would have negative values"):
        merged(1.0, 0.25)
    # A logarithm may be negative.
    assert merged(-1.0, -2.0) < 0
    assert merged(1.0, 2.0) == 3.0


def router(kind: str) -> transformers.PreTrainedModel:
    sizes = {
        "vocab_size": 16,
        "hidden_size": 8,
        "intermediate_size": 8,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    if kind == "ernie":
        config = transformers.Ernie4_5_MoeConfig(**sizes, moe_num_experts=4, moe_k=2, moe_layer_start_index=0)
        return transformers.Ernie4_5_MoeForCausalLM(config)
    return transformers.AfmoeForCausalLM(
        transformers.AfmoeConfig(
            **sizes, num_experts=4, num_experts_per_tok=2, num_shared_experts=1, num_dense_layers=0, head_dim=4
        )
    )


@pytest.mark.parametrize(("kind", "bias"), [("ernie", "moe_statics.e_score_correction_bias"), ("afmoe", "expert_bias")])
def test_a_bias_that_balances_experts_is_a_statistic_also_as_a_parameter(tmp_path: Path, kind: str, bias: str) -> None:
    model = router(kind)
    model.save_pretrained(tmp_path)
    opened = open_checkpoint(tmp_path, "base")
    rule = weight_matrices(opened.config, opened.tensors)
    plan = make_plan(opened, [align(opened, opened, ties=rule.ties, buffers=rule.buffers)], rule)
    assert rule.no_class is None
    assert [tensor.name for tensor in plan.averaged] == [f"model.layers.0.mlp.{bias}"]
