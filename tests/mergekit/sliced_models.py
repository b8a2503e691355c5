"""Small models whose layers are stacked, and their merge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hubmerge

SIZES = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES |= {"vocab_size": 16, "max_position_embeddings": 16}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models base, a and b of four layers, deep of six layers, and an adapter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("base", "a", "b", "deep", "wide")):
        torch.manual_seed(seed)
        layers = 6 if name == "deep" else 4
        changed = {"hidden_size": 16} if name == "wide" else {}
        LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **SIZES | changed)).save_pretrained(folder / name)
    adapter = folder / "adapter"
    adapter.mkdir()
    name = "base_model.model.model.layers.3.self_attn.q_proj"
    generator = torch.Generator().manual_seed(9)
    shapes = {f"{name}.lora_A.weight": (2, 8), f"{name}.lora_B.weight": (8, 2)}
    save_file(
        {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()},
        adapter / "adapter_model.safetensors",
    )
    keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (adapter / "adapter_config.json").write_text(json.dumps(keys), encoding="utf-8")
    return folder


def written(models: Path, folder: Path, text: str) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(text.replace("DIR", str(models)), encoding="utf-8")
    return recipe


def merged(models: Path, folder: Path, text: str) -> Tensors:
    recipe = written(models, folder, text)
    hubmerge.run(recipe, out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return load_file(folder / "out" / "model.safetensors")


STACKED = """\
merge_method: passthrough
slices:
  - sources: [{model: DIR/a, layer_range: [0, 3]}]
  - sources:
      - model: DIR/b+DIR/adapter
        layer_range: [2, 4]
        parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 1}]}
  - sources: [{model: DIR/deep, layer_range: [5, 6]}]
"""
MERGED = """\
merge_method: task_arithmetic
base_model: DIR/base
slices:
  - sources:
      - {model: DIR/base, layer_range: [0, 3]}
      - {model: DIR/a, layer_range: [1, 4], parameters: {weight: [{filter: mlp, value: [0, 1]}, {value: 0.25}]}}
      - {model: DIR/deep, layer_range: [3, 6]}
    parameters: {weight: [0.2, 0.6]}
  - sources:
      - {model: DIR/deep, layer_range: [4, 5]}
      - {model: DIR/base, layer_range: [3, 4]}
parameters: {weight: [0.5, 0.75], lambda: 0.9}
"""
CUT = """\
merge_method: slerp
base_model: DIR/base
slices:
  - sources:
      - {model: DIR/base, layer_range: [0, 2]}
      - {model: DIR/deep, layer_range: [0, 2]}
parameters: {t: [0, 1]}
"""
