"""A checkpoint with a LoRA adapter has the tensors that the peft library merges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import (
    ALL_TENSORS,
    AdaptedCheckpoint,
    MergePlan,
    Selection,
    align,
    make_plan,
    open_checkpoint,
    weight_matrices,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.adapters.making import IGNORED_WARNINGS, QV, adapt, opened, train
from tests.checkpoints.families import make, save
from tests.checks import every

pytestmark = IGNORED_WARNINGS
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "CLIP tower": ("CLIPVisionModel", {"target_modules": [*QV, "fc1"]}),
    "CLIP": ("CLIPModel", {"target_modules": ["q_proj", "visual_projection"]}),
    "convolution": ("CLIPVisionModel", {"target_modules": ["patch_embedding", "fc2"]}),
    "ViT with a head": (
        "ViTForImageClassification",
        {"target_modules": QV, "modules_to_save": ["classifier"]},
    ),
    "BERT with a head": (
        "BertForSequenceClassification",
        {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
    ),
    "T5": ("T5ForConditionalGeneration", {"target_modules": ["q", "wo"], "task_type": "SEQ_2_SEQ_LM"}),
    "GPT-2": (
        "GPT2LMHeadModel",
        {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"},
    ),
    "Llama": ("LlamaForCausalLM", {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}),
    "embedding": ("LlamaForCausalLM", {"target_modules": ["embed_tokens", "q_proj"], "task_type": "CAUSAL_LM"}),
    "rslora": ("LlamaForCausalLM", {"target_modules": QV, "use_rslora": True, "lora_alpha": 5, "r": 3}),
    "patterns": (
        "LlamaForCausalLM",
        {
            "target_modules": [*QV, "k_proj", "down_proj"],
            "rank_pattern": {"q_proj": 2, r"model.layers.\d+.mlp.down_proj": 5},
            "alpha_pattern": {"q_proj": 32, r"layers\.0\.self_attn\.v_proj": 7, "^model.layers.0.mlp.down_proj": 1},
        },
    ),
    "chosen layers": (
        "LlamaForCausalLM",
        {"target_modules": QV, "layers_to_transform": [0], "layers_pattern": "layers", "task_type": "CAUSAL_LM"},
    ),
    "expressions": ("LlamaForCausalLM", {"target_modules": r".*(q|o)_proj", "exclude_modules": r".*o_proj"}),
    "all biases": ("Qwen2ForCausalLM", {"target_modules": QV, "bias": "all"}),
    "bias": ("BertForSequenceClassification", {"target_modules": ["query"], "bias": "lora_only"}),
    "Qwen, tied": ("Qwen2ForCausalLM", {"target_modules": QV, "task_type": "CAUSAL_LM"}),
    "experts": ("Qwen3MoeForCausalLM", {"target_modules": ["q_proj", "o_proj"], "task_type": "CAUSAL_LM"}),
}


def planned(model: Path, adapter: Path, selection: Selection = ALL_TENSORS) -> MergePlan:
    """Return the plan of merging the model with the adapter into the model alone."""
    base = open_checkpoint(model, "model")
    rule = weight_matrices(base.config, base.tensors)
    aligned = align(base, opened(model, adapter), selection=selection, ties=rule.ties)
    return make_plan(base, [aligned], rule, selection=selection)


def values_of(checkpoint: AdaptedCheckpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.read(name) for name in checkpoint.tensors}


def assert_equal(ours: AdaptedCheckpoint, expected: Mapping[str, torch.Tensor]) -> None:
    assert set(ours.tensors) == set(expected)
    for name, value in expected.items():
        assert torch.equal(ours.read(name), value)


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_equals_the_merge_of_peft(tmp_path: Path, case: str) -> None:
    family, options = CASES[case]
    model, adapter, merged = adapt(family, options, tmp_path)
    ours, theirs, before = opened(model, adapter), open_checkpoint(merged), open_checkpoint(model)
    assert set(ours.tensors) == set(theirs.tensors)
    for name in theirs.tensors:
        torch.testing.assert_close(ours.read(name), theirs.read(name), rtol=1e-12, atol=1e-13, msg=name)
        assert ours.tensors[name].shape == theirs.tensors[name].shape
        assert ours.tensors[name].dtype == ours.read(name).dtype
    different = {name for name in theirs.tensors if not torch.equal(theirs.read(name), before.read(name))}
    assert different
    assert set(ours.changed) == different
    aligned = align(before, ours)
    assert set(aligned.tensors) == set(before.tensors)


def test_a_small_change_of_a_bfloat16_model_is_not_rounded_away(tmp_path: Path) -> None:
    _, adapter, _ = adapt("LlamaForCausalLM", {"target_modules": QV}, tmp_path)
    save(make("LlamaForCausalLM").to(torch.bfloat16), tmp_path / "half")
    factors = {name: 1e-4 * value.float() for name, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(factors, adapter / "adapter_model.safetensors")
    ours, before = opened(tmp_path / "half", adapter), open_checkpoint(tmp_path / "half")
    name = "model.layers.0.self_attn.q_proj.weight"
    change = ours.read(name) - before.read(name)
    prefix = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    up, down = (factors[f"{prefix}{which}.weight"].double() for which in "BA")
    torch.testing.assert_close(change, 3 * up @ down, rtol=1e-9, atol=1e-16)
    assert torch.equal((before.read(name) + change.to(torch.bfloat16)), before.read(name))
    untouched = "model.layers.0.self_attn.k_proj.weight"
    assert ours.read(untouched).dtype == torch.bfloat16


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_an_adapter_with_another_layout_of_names_is_matched(tmp_path: Path, prefix: str) -> None:
    model, adapter, _ = adapt("CLIPVisionModel", {"target_modules": QV}, tmp_path)
    expected = values_of(opened(model, adapter))
    factors = load_file(adapter / "adapter_model.safetensors")
    renamed = {
        name.replace("base_model.model.", f"base_model.model.{prefix}"): value for name, value in factors.items()
    }
    save_file(renamed, adapter / "adapter_model.safetensors")
    plain = load_file(model / "model.safetensors")
    for layout in ("", "vision_model."):
        tensors = {f"{layout}{name}": value for name, value in plain.items()}
        save_file(tensors, model / "model.safetensors")
        assert_equal(opened(model, adapter), {f"{layout}{name}": value for name, value in expected.items()})


def test_an_adapter_with_names_of_older_files_is_matched(tmp_path: Path) -> None:
    model, adapter, _ = adapt("ViTForImageClassification", {"target_modules": QV}, tmp_path)
    expected = values_of(opened(model, adapter))
    factors = load_file(adapter / "adapter_model.safetensors")
    older = {
        name.replace("vit.layers", "vit.encoder.layer")
        .replace("attention.q_proj", "attention.attention.query")
        .replace("attention.v_proj", "attention.attention.value"): value
        for name, value in factors.items()
    }
    assert not set(older) & set(factors)
    save_file(older, adapter / "adapter_model.safetensors")
    assert_equal(opened(model, adapter), expected)


def test_a_pickled_adapter_is_read(tmp_path: Path) -> None:
    model, adapter, _ = adapt("LlamaForCausalLM", {"target_modules": QV}, tmp_path)
    expected = values_of(opened(model, adapter))
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert_equal(opened(model, adapter), expected)


def test_a_saved_head_that_the_model_lacks_is_left_to_the_alignment(tmp_path: Path) -> None:
    options = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    model, adapter, _ = adapt("BertForSequenceClassification", options, tmp_path)
    body = {
        name: value for name, value in load_file(model / "model.safetensors").items() if not name.startswith("class")
    }
    save_file(body, model / "model.safetensors")
    ours = opened(model, adapter)
    assert {"classifier.weight", "classifier.bias"} <= set(ours.changed)
    with pytest.raises(CheckpointError, match=r"classifier\.(weight|bias)"):
        align(open_checkpoint(model), ours)


def test_a_saved_head_has_unknown_classes(tmp_path: Path) -> None:
    family = "BertForSequenceClassification"
    model, adapter, _ = adapt(family, {"target_modules": ["query"], "task_type": "SEQ_CLS"}, tmp_path / "with head")
    _, alone, _ = adapt(family, {"target_modules": ["query"]}, tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"head for classes that an adapter does not name, .* cat, dog"):
        planned(model, adapter)
    for selection in (Selection(exclude=("classifier.*",)), Selection(include=("*",))):
        planned(model, adapter, selection)
    assert not planned(model, alone).kept


@pytest.mark.parametrize("saved", ["embed_tokens", "lm_head"])
def test_saving_one_of_two_tied_tensors_is_refused_unless_it_is_excluded(tmp_path: Path, saved: str) -> None:
    model, adapter, _ = adapt("Qwen2ForCausalLM", {"target_modules": QV, "modules_to_save": [saved]}, tmp_path)
    name = {"embed_tokens": "model.embed_tokens.weight", "lm_head": "lm_head.weight"}[saved]
    with pytest.raises(
        CheckpointError, match=rf"the adapter saved '{name}' but not '.*', though .* ties them"
    ) as caught:
        planned(model, adapter)
    assert f'exclude: ["{name}"]' in (caught.value.hint or "")
    planned(model, adapter, Selection(exclude=(name,)))


def test_tied_tensors_that_are_saved_together_are_merged(tmp_path: Path) -> None:
    options = {"target_modules": QV, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    model, adapter, _ = adapt("Qwen2ForCausalLM", options, tmp_path)
    assert "model.embed_tokens.weight" in {tensor.name for tensor in planned(model, adapter).merged}


def test_a_change_of_tied_embeddings_changes_both(tmp_path: Path) -> None:
    model, adapter, merged = adapt("Qwen2ForCausalLM", {"target_modules": ["embed_tokens"]}, tmp_path)
    assert "model.embed_tokens.weight" in {tensor.name for tensor in planned(model, adapter).merged}
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(opened(model, adapter).read(name), open_checkpoint(merged).read(name))


@pytest.mark.parametrize(("family", "whole"), [("CLIP", "CLIPModel"), ("Siglip", "SiglipModel")])
@pytest.mark.parametrize("tower", ["vision", "text"])
def test_the_class_of_an_adapter_decides_between_towers(tmp_path: Path, family: str, whole: str, tower: str) -> None:
    import transformers

    model = save(make(whole), tmp_path / "whole")
    tower_class = getattr(transformers, f"{family}{tower.title()}Model")
    adapter = tmp_path / "adapter"
    train(tower_class.from_pretrained(model), {"target_modules": QV}).save_pretrained(adapter)
    changed = opened(model, adapter).changed
    assert len(changed) == 2
    assert every(name.startswith(f"{tower}_model.") for name in changed)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": None}))
    with pytest.raises(CheckpointError, match="match the base model in more than one way") as caught:
        opened(model, adapter)
    assert "owner/tower+adapter" in (caught.value.hint or "")
    alone = save(tower_class.from_pretrained(model), tmp_path / "tower")
    aligned = align(open_checkpoint(model), opened(alone, adapter))
    assert every(name.startswith(f"{tower}_model.") for name in aligned.tensors)
