"""Gradients over the layers in merges, against the values that they have layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import hubmerge

LAYERS = 5
NAMES = [f"model.layers.{number}.{part}.weight" for number in range(LAYERS) for part in ("self_attn.q_proj", "mlp.up")]


def model(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 3, generator=generator) for name in [*NAMES, "lm_head.weight"]}


def test_slerp_with_gradients_is_slerp_layer_by_layer() -> None:
    base, other = model(0), model(1)
    t = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": [1, 0]}, {"value": 0.3}]
    merged = hubmerge.merge_state_dicts(base, [other], method="slerp", parameters={"t": t})
    attention, mlp = [0, 0.25, 0.5, 0.75, 1], [1, 0.75, 0.5, 0.25, 0]
    expected = dict(zip(NAMES, (value for pair in zip(attention, mlp, strict=True) for value in pair), strict=True))
    for name, value in {**expected, "lm_head.weight": 0.3}.items():
        alone = hubmerge.merge_state_dicts(
            {name: base[name]}, [{name: other[name]}], method="slerp", parameters={"t": value}
        )
        assert torch.equal(merged[name], alone[name]), name


@pytest.mark.parametrize("form", ["stream", "joint"])
def test_weights_of_models_are_gradients_in_both_forms(form: str) -> None:
    base, models = model(0), [model(1), model(2)]
    own: list[dict[str, Any]] = [
        {"weight": [0, 1]},
        {"weight": [{"filter": "mlp", "value": [1, 0, 1]}, {"value": 0.5}]},
    ]
    merged = hubmerge.merge_state_dicts(
        base,
        models,
        method="task_arithmetic",
        own_parameters=own,
        parameters={"normalize": False},
        recipe={"form": form},
    )
    for name in NAMES:
        layer = int(name.split(".")[2])
        second = abs(1 - layer / 2) if "mlp" in name else 0.5
        expected = base[name] + layer / 4 * (models[0][name] - base[name]) + second * (models[1][name] - base[name])
        assert torch.allclose(merged[name], expected, atol=1e-6), name
