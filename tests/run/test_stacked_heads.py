"""Stacked layers of models whose other tensors differ: heads, layers for further tokens, prefixes of names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

import hubmerge

SIZES: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
SIZES |= {"vocab_size": 16, "max_position_embeddings": 16, "num_hidden_layers": 2}
Tensors = dict[str, torch.Tensor]


def stored(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def stacked(home: Path, *ranges: tuple[str, int, int], extra: str = "") -> tuple[Tensors, dict[str, Any], list[str]]:
    """Stack layers; return the tensors, the config, and the notes of the plan."""
    lines = [f"  - sources: [{{model: {home}/{name}, layer_range: [{first}, {end}]}}]\n" for name, first, end in ranges]
    recipe = home / "recipe.yaml"
    recipe.write_text(f"merge_method: passthrough\n{extra}slices:\n{''.join(lines)}", encoding="utf-8")
    notes = hubmerge.plan(recipe, progress=None).to_dict()["loading"]
    hubmerge.run(recipe, out=home / "out", work_dir=home / "work", progress=None).finish()
    config = json.loads((home / "out" / "config.json").read_text(encoding="utf-8"))
    return stored(home / "out"), config, notes


def llama(home: Path, name: str, seed: int, *, tied: bool = False, kind: Any = LlamaForCausalLM) -> Tensors:
    torch.manual_seed(seed)
    kind(LlamaConfig(**SIZES, tie_word_embeddings=tied)).save_pretrained(home / name)
    return stored(home / name)


def logits(folder: Path) -> torch.Tensor:
    model = LlamaForCausalLM.from_pretrained(folder)
    return model(torch.tensor([[3, 4, 5]])).logits


@pytest.mark.parametrize("tied", [(True, False), (False, True), (True, True), (False, False)])
def test_the_head_is_that_of_the_last_slice_whether_it_is_tied_or_not(tied: tuple[bool, bool], tmp_path: Path) -> None:
    first, last = (llama(tmp_path, name, seed, tied=tied[seed]) for seed, name in enumerate("ab"))
    found, config, _ = stacked(tmp_path, ("a", 0, 2), ("b", 0, 2))
    assert torch.equal(found["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    assert torch.equal(found["model.norm.weight"], last["model.norm.weight"])
    if tied == (True, True):
        assert config["tie_word_embeddings"]
        assert "lm_head.weight" not in found
    else:
        own = "lm_head.weight" if "lm_head.weight" in last else "model.embed_tokens.weight"
        assert torch.equal(found["lm_head.weight"], last[own])
        assert not config["tie_word_embeddings"]
    assert torch.isfinite(logits(tmp_path / "out")).all()


def test_a_model_without_its_head_gives_layers_under_the_names_of_the_first(tmp_path: Path) -> None:
    first = llama(tmp_path, "a", 0)
    body = llama(tmp_path, "b", 1, kind=LlamaModel)
    assert "layers.0.mlp.up_proj.weight" in body
    found, config, _ = stacked(tmp_path, ("a", 0, 1), ("b", 1, 2), ("a", 1, 2))
    assert config["num_hidden_layers"] == 3
    name = "mlp.up_proj.weight"
    assert torch.equal(found[f"model.layers.1.{name}"], body[f"layers.1.{name}"])
    assert torch.equal(found[f"model.layers.2.{name}"], first[f"model.layers.1.{name}"])


def deepseek(home: Path, name: str, seed: int) -> Tensors:
    """Write a model with a layer for multi-token prediction, which its class does not use."""
    sizes = {"first_k_dense_replace": 1, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1}
    sizes |= {"moe_intermediate_size": 8, "n_shared_experts": 1, "q_lora_rank": 4, "kv_lora_rank": 4, "v_head_dim": 4}
    sizes |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "num_nextn_predict_layers": 1}
    torch.manual_seed(seed)
    DeepseekV3ForCausalLM(DeepseekV3Config(**SIZES, **sizes)).save_pretrained(home / name)
    found = stored(home / name)
    further = {key.replace("layers.1.", "layers.2."): value + 1 for key, value in found.items() if "layers.1." in key}
    found |= further | {"model.layers.2.eh_proj.weight": torch.ones(8, 16)}
    save_file(found, home / name / "model.safetensors", metadata={"format": "pt"})
    return found


def test_layers_for_further_tokens_follow_the_last_layer_of_their_model_or_are_left_out(tmp_path: Path) -> None:
    deepseek(tmp_path, "a", 0)
    last = deepseek(tmp_path, "b", 1)
    found, config, notes = stacked(tmp_path, ("a", 0, 2), ("b", 1, 2))
    assert (config["num_hidden_layers"], config["num_nextn_predict_layers"]) == (3, 1)
    assert torch.equal(found["model.layers.3.eh_proj.weight"], last["model.layers.2.eh_proj.weight"])
    assert not any("left out" in note for note in notes)
    found, config, notes = stacked(tmp_path, ("a", 0, 1))
    assert (config["num_hidden_layers"], config["num_nextn_predict_layers"]) == (1, 0)
    assert not any("eh_proj" in name or "layers.1." in name for name in found)
    assert any("for multi-token prediction" in note for note in notes)


def classifier(home: Path, name: str, seed: int, labels: tuple[str, ...]) -> Tensors:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: number for number, label in enumerate(labels)}}
    torch.manual_seed(seed)
    ViTForImageClassification(ViTConfig(**sizes, **names, image_size=8, patch_size=4)).save_pretrained(home / name)
    return stored(home / name)


@pytest.mark.parametrize("labels", [("owl", "fox"), ("LABEL_0", "LABEL_1")])
def test_a_classifier_keeps_the_classes_of_its_head(labels: tuple[str, ...], tmp_path: Path) -> None:
    classifier(tmp_path, "a", 0, ("cat", "dog"))
    last = classifier(tmp_path, "b", 1, labels)
    found, config, _ = stacked(tmp_path, ("a", 0, 2), ("b", 1, 2))
    assert torch.equal(found["classifier.weight"], last["classifier.weight"])
    own = json.loads((tmp_path / "b" / "config.json").read_text(encoding="utf-8"))
    assert config.get("id2label") == own.get("id2label")


def test_heads_for_other_classes_are_not_merged_in_a_slice(tmp_path: Path) -> None:
    for seed, (name, labels) in enumerate({"a": ("cat", "dog"), "b": ("owl", "fox")}.items()):
        classifier(tmp_path, name, seed, labels)
    sources = ", ".join(f"{{model: {tmp_path}/{name}, layer_range: [0, 1]}}" for name in "ab")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"merge_method: linear\nslices:\n  - sources: [{sources}]\n", encoding="utf-8")
    with pytest.raises(hubmerge.HubmergeError, match="classification head"):
        hubmerge.plan(recipe, progress=None)


def test_a_value_that_is_not_finite_is_named_in_its_own_model(tmp_path: Path) -> None:
    llama(tmp_path, "a", 0)
    last = llama(tmp_path, "b", 1)
    last["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(last, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(hubmerge.HubmergeError, match=r"/b: tensor 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        stacked(tmp_path, ("a", 0, 2), ("b", 1, 2))


def test_layers_of_different_kinds_that_are_merged_are_told(tmp_path: Path) -> None:
    sizes = {**SIZES, "num_hidden_layers": 4, "head_dim": 4}
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        Gemma2ForCausalLM(Gemma2Config(**sizes)).save_pretrained(tmp_path / name)
    recipe = tmp_path / "recipe.yaml"
    ranges = enumerate("ab")
    sources = ", ".join(f"{{model: {tmp_path}/{name}, layer_range: [{first}, {first + 2}]}}" for first, name in ranges)
    recipe.write_text(f"merge_method: linear\nslices:\n  - sources: [{sources}]\n", encoding="utf-8")
    notes = hubmerge.plan(recipe, progress=None).to_dict()["loading"]
    assert any("layers of different kinds are merged with each other (layer_types)" in note for note in notes)


def test_rows_of_a_joined_vocabulary_are_those_of_the_first_and_the_last_slice(tmp_path: Path) -> None:
    words = {"a": ["cat", "dog"], "b": ["dog", "owl", "fox"]}
    models = {}
    for seed, (name, own) in enumerate(words.items()):
        numbers = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *own])}
        tokenizer = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
        fast.save_pretrained(tmp_path / name)
        torch.manual_seed(seed)
        LlamaForCausalLM(LlamaConfig(**SIZES | {"vocab_size": len(numbers)})).save_pretrained(tmp_path / name)
        models[name] = stored(tmp_path / name)
    found, config, _ = stacked(tmp_path, ("a", 0, 2), ("b", 1, 2), extra="tokenizer_source: union\n")
    numbers = PreTrainedTokenizerFast.from_pretrained(tmp_path / "out").get_vocab()
    assert (len(numbers), config["vocab_size"], config["num_hidden_layers"]) == (7, 7, 3)
    rows, head = found["model.embed_tokens.weight"], found["lm_head.weight"]
    assert torch.equal(rows[numbers["dog"]], models["a"]["model.embed_tokens.weight"][4])
    assert torch.equal(rows[numbers["owl"]], models["b"]["model.embed_tokens.weight"][4])
    assert torch.equal(head[numbers["dog"]], models["b"]["lm_head.weight"][3])
    assert torch.equal(head[numbers["cat"]], models["a"]["lm_head.weight"][3])
