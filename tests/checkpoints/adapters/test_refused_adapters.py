"""Adapters that cannot be merged are refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import (
    open_adapter,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.adapters.making import IGNORED_WARNINGS, QV, adapt, opened
from tests.checkpoints.families import make, save

pytestmark = IGNORED_WARNINGS

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]
LORA_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LORA_B = LORA_A.replace("lora_A", "lora_B")


def _configured(**changes: Any) -> Change:
    return lambda config, _: config.update(changes)


def _with(name: str, *shape: int) -> Change:
    return lambda _, tensors: tensors.update({name: torch.ones(shape)})


def _without(name: str) -> Change:
    def change(_config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return change


def _empty(_config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors.clear()


REFUSED: dict[str, tuple[Change, str]] = {
    "another type": (_configured(peft_type="IA3"), "type 'IA3'"),
    "no type": (_configured(peft_type=None), "type None"),
    "DoRA": (_configured(use_dora=True), "`use_dora`; only changes of whole layers are merged"),
    "bias of B": (_configured(lora_bias=True), "`lora_bias`"),
    "bare parameters": (
        _configured(target_parameters=["mlp.experts.down_proj"]),
        "`target_parameters`; only changes of whole layers are merged",
    ),
    "moved weights": (_configured(init_lora_weights="pissa"), "`init_lora_weights: pissa`"),
    "no alpha": (_configured(lora_alpha=None), "lora_alpha None"),
    "alpha a text": (_configured(lora_alpha="8"), "lora_alpha '8'"),
    "broken pattern": (_configured(alpha_pattern={"q_proj(": 3}), "is not a valid pattern"),
    "pattern without end": (_configured(alpha_pattern={"(a+)+x": 3}), "too complex"),
    "long pattern": (_configured(alpha_pattern={".*" * 5 + "q": 3}), "too complex"),
    "one factor": (_without(LORA_B), "expected two matching factors"),
    "factors of other ranks": (_with(LORA_B, 16, 3), "expected two matching factors"),
    "another width": (_with(LORA_B, 15, 4), "15 x 16"),
    "another model": (_with(LORA_A.replace("q_proj", "qkv"), 4, 16), "expected two matching factors"),
    "magnitudes": (
        _with(LORA_A.replace("lora_A.weight", "lora_magnitude_vector"), 16),
        "neither a LoRA factor nor a saved module",
    ),
    "nothing": (_empty, "contains no tensors"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_adapters_that_cannot_be_merged_are_refused(tmp_path: Path, case: str) -> None:
    model, adapter, _ = adapt("LlamaForCausalLM", {"target_modules": QV}, tmp_path)
    change, expected = REFUSED[case]
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(config, tensors)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        opened(model, adapter)
    assert expected in caught.value.message
    assert caught.value.message.startswith("adapter: ")
    assert caught.value.hint


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    _, adapter, _ = adapt("LlamaForCausalLM", {"target_modules": QV}, tmp_path)
    other = save(make("BertForSequenceClassification"), tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"module 'model\.layers\.0\.self_attn\..*' is not in the model model"):
        opened(other, adapter)


def test_folders_without_an_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        open_adapter(tmp_path, "adapter")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors"):
        open_adapter(tmp_path, "adapter")
