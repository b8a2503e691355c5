"""Causes of mismatches in classes whose layers share blocks, or one table for all layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import Checkpoint, align, open_checkpoint
from hubmerge.errors import CheckpointError
from tests.checkpoints.families import LANGUAGE, save

LAYERS = 4


def zamba2(layers: int) -> torch.nn.Module:
    """Return a model of which every second layer uses one block of attention, with an adapter for each use."""
    import transformers

    config = transformers.Zamba2Config(
        **{**LANGUAGE, "num_hidden_layers": layers},
        layers_block_type=[("mamba", "hybrid")[layer % 2] for layer in range(layers)],
        mamba_d_state=4,
        mamba_headdim=8,
        n_mamba_heads=2,
        mamba_ngroups=1,
        num_mem_blocks=1,
        use_mamba_kernels=False,
        attention_head_dim=8,
        attention_hidden_size=16,
        adapter_rank=2,
    )
    return transformers.Zamba2ForCausalLM(config)


def gemma3n(layers: int) -> torch.nn.Module:
    """Return a model whose second table of embeddings has columns for each layer."""
    import transformers

    config = transformers.Gemma3nTextConfig(
        **{**LANGUAGE, "num_hidden_layers": layers, "intermediate_size": [24] * layers},
        vocab_size_per_layer_input=20,
        hidden_size_per_layer_input=4,
        head_dim=8,
        num_kv_shared_layers=0,
        laurel_rank=2,
        altup_num_inputs=2,
        layer_types=["full_attention"] * layers,
        activation_sparsity_pattern=[0.0] * layers,
    )
    return transformers.Gemma3nForCausalLM(config)


MADE = {"Zamba2": zamba2, "Gemma 3n": gemma3n}


@pytest.fixture(params=MADE)
def family(request: pytest.FixtureRequest) -> Any:
    return MADE[request.param]


def refused(base: Checkpoint, folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        align(base, open_checkpoint(folder, "tuned"))
    return caught.value


def test_another_number_of_layers(family: Any, tmp_path: Path) -> None:
    base = open_checkpoint(save(family(LAYERS), tmp_path / "base"), "base")
    for layers in (LAYERS - 2, LAYERS + 2):
        error = refused(base, save(family(layers), tmp_path / str(layers)))
        expected = f"(num_hidden_layers is {layers}, expected {LAYERS}): tensor"
        assert error.message.startswith(f"tuned: its layers are not those of the base model base {expected}")


def test_missing_layers(family: Any, tmp_path: Path) -> None:
    folder = save(family(LAYERS), tmp_path / "base")
    base, weights = open_checkpoint(folder, "base"), load_file(folder / "model.safetensors")
    for layer in (2, LAYERS - 1):
        tuned = save(family(LAYERS), tmp_path / str(layer))
        kept = {name: value for name, value in weights.items() if f".layers.{layer}." not in name}
        save_file(kept, tuned / "model.safetensors", {"format": "pt"})
        error = refused(base, tuned)
        assert error.message.startswith(f"tuned: it is incomplete, without model.layers.{layer}: tensors ")
        assert error.hint == "fetch the checkpoint again, or save it again with save_pretrained()"
