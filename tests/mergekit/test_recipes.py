"""Whole recipes on tiny Llama models, beside mergekit-yaml where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from hubmerge import load, run
from hubmerge.methods import is_joint
from tests.mergekit.oracle import check_equals_mergekit, needs_mergekit

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "vocab_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "tie_word_embeddings": True,
}
LAYER = {
    "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (16, 16),
    "self_attn.v_proj": (16, 16),
    "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (24, 16),
    "mlp.up_proj": (24, 16),
    "mlp.down_proj": (16, 24),
    "input_layernorm": (16,),
    "post_attention_layernorm": (16,),
}
HALF = {"parameters": {"weight": 0.5}}
RECIPES: dict[str, dict[str, Any]] = {
    "linear with the base listed": {"merge_method": "linear", "models": [("base", HALF), ("one", HALF)]},
    "slerp": {
        "merge_method": "slerp",
        "base_model": "base",
        "models": [("base", {}), ("one", {})],
        "parameters": {"t": [{"filter": "self_attn", "value": 0.3}, {"value": 0.6}]},
    },
    "ties with the base listed": {
        "merge_method": "ties",
        "base_model": "base",
        "models": [
            ("base", {}),
            ("one", {"parameters": {"weight": 0.5, "density": 0.5}}),
            ("two", {"parameters": {"weight": 0.3, "density": [{"filter": "mlp", "value": 0.9}, {"value": 0.4}]}}),
        ],
        "parameters": {"normalize": True, "int8_mask": False},
    },
    "model_stock": {
        "merge_method": "model_stock",
        "base_model": "base",
        "models": [("base", {}), ("one", {}), ("two", {})],
    },
    "karcher with the base named": {
        "merge_method": "karcher",
        "base_model": "base",
        "models": [("one", {}), ("two", {})],
    },
    "nuslerp without a base": {"merge_method": "nuslerp", "models": [("one", HALF), ("two", HALF)]},
    "sce": {
        "merge_method": "sce",
        "base_model": "base",
        "models": [("one", {}), ("two", {})],
        "parameters": {"select_topk": 0.5},
    },
}


def folder_of(name: str, home: Path) -> Path:
    """Write a model, and return its folder."""
    shapes = {"model.embed_tokens.weight": (20, 16), "model.norm.weight": (16,)}
    shapes |= {f"model.layers.{number}.{part}.weight": shape for number in (0, 1) for part, shape in LAYER.items()}
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(len(name) + ord(name[0]))
    tensors = {key: torch.randn(shape, generator=base) for key, shape in shapes.items()}
    if name != "base":
        tensors = {key: value + 0.1 * torch.randn(value.shape, generator=own) for key, value in tensors.items()}
    folder = home / name
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


def written(recipe: dict[str, Any], home: Path) -> dict[str, Any]:
    """Return a recipe with the paths of its models."""
    folders = {name: str(folder_of(name, home)) for name in ("base", "one", "two")}
    models = [{"model": folders[name], **keys} for name, keys in recipe["models"]]
    found = {**recipe, "models": models, "dtype": "float32"}
    return found | ({"base_model": folders["base"]} if "base_model" in recipe else {})


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_of_mergekit_merges_all_models_at_once(recipe: dict[str, Any], tmp_path: Path) -> None:
    assert is_joint(load(written(recipe, tmp_path)).recipe)


@pytest.mark.slow
@needs_mergekit
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_gives_what_mergekit_gives(recipe: dict[str, Any], tmp_path: Path) -> None:
    keys = written(recipe, tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    run(file, out=tmp_path / "ours", work_dir=tmp_path / "work", progress=None).finish()
    check_equals_mergekit(load_file(tmp_path / "ours" / "model.safetensors"), tmp_path)
