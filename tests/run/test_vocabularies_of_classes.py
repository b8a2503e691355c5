"""Vocabularies joined in runs: chat templates, other model classes, adapters, tied heads, and rows without a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import hubmerge as api
from tests.mergekit.vocabularies import bytes_tokenizer, write_model, write_models
from tests.run.vocabulary_models import EMBEDDINGS, linear, merged, models, written

__all__ = ["models"]  # fixtures


def test_the_chat_template_of_most_models_is_taken(models: Path, tmp_path: Path) -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        for path in (models / "same").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    recipe = linear(models / "base", tmp_path / "one", tmp_path / "two", chat_template="auto")
    out = merged(recipe, tmp_path / "run")
    assert (out / "chat_template.jinja").read_text(encoding="utf-8") == template
    assert (out / "tokenizer.json").read_bytes() == (models / "base" / "tokenizer.json").read_bytes()
    assert AutoTokenizer.from_pretrained(out).chat_template == template


def test_numbers_of_special_tokens_are_those_of_the_model_whose_tokenizer_is_taken(
    models: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "chat", 4, bytes_tokenizer("low lower", specials=("<|im_start|>", "<|im_end|>", "</s>")))
    out = merged(linear(models / "base", tmp_path / "chat", tokenizer_source=str(tmp_path / "chat")), tmp_path / "run")
    tokens = AutoTokenizer.from_pretrained(out)
    for name in ("config.json", "generation_config.json"):
        found = json.loads((out / name).read_text(encoding="utf-8"))
        assert (found["bos_token_id"], found["eos_token_id"]) == (tokens.bos_token_id, tokens.eos_token_id) == (0, 1)
    assert tokens.eos_token == "<|im_end|>"
    without = tmp_path / "alone"
    without.mkdir()
    for path in (tmp_path / "chat").glob("tokenizer*"):
        (without / path.name).write_bytes(path.read_bytes())
    out = merged(linear(models / "base", models / "a", tokenizer_source=str(without)), tmp_path / "other")
    found = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (found["bos_token_id"], found["eos_token_id"]) == (0, 1)


@pytest.mark.parametrize("kind", ["bert", "llava"])
def test_other_classes_are_merged_token_by_token_too(kind: str, tmp_path: Path) -> None:
    import transformers

    classes: dict[str, Any] = {
        "bert": (transformers.BertConfig, transformers.BertForMaskedLM),
        "llava": (transformers.LlavaConfig, transformers.LlavaForConditionalGeneration),
    }
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
    tokenizers = [bytes_tokenizer("low lower"), bytes_tokenizer("wide wider", ["<image>"])]
    config_class, model_class = classes[kind]
    for number, made in enumerate(tokenizers):
        torch.manual_seed(number)
        text = {**small, "vocab_size": len(made)}
        keys: dict[str, Any] = text
        if kind == "llava":
            vision = {**small, "model_type": "clip_vision_model", "image_size": 4, "patch_size": 2}
            keys = {"text_config": {**text, "model_type": "llama"}, "vision_config": vision, "image_token_id": 1}
        model_class(config_class(**keys)).save_pretrained(tmp_path / str(number))
        made.save_pretrained(tmp_path / str(number))
    out = merged(linear(tmp_path / "0", tmp_path / "1", tokenizer_source="union"), tmp_path / "run")
    loaded = model_class.from_pretrained(out)
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    assert loaded.get_input_embeddings().weight.shape[0] == loaded.config.get_text_config().vocab_size == len(tokens)
    sources = [model_class.from_pretrained(tmp_path / str(number)).state_dict() for number in (0, 1)]
    own = [made.get_vocab() for made in tokenizers]
    state = loaded.state_dict()
    counted = [name for name, one in sources[0].items() if one.shape[:1] == (len(own[0]),)]
    assert len(counted) >= {"bert": 3, "llava": 2}[kind]
    for name in counted:
        for token, number in tokens.items():
            rows = [one[name][places[token]] for one, places in zip(sources, own, strict=True) if token in places]
            given = [*rows, rows[0]][:2]
            assert torch.allclose(state[name][number], (given[0] + given[1]) / 2, atol=1e-6), (name, token)


def test_stacked_layers_have_the_rows_of_the_union(models: Path, tmp_path: Path) -> None:
    ranges = [(models / "base", [0, 1]), (models / "a", [0, 2])]
    slices = [{"sources": [{"model": str(model), "layer_range": layers}]} for model, layers in ranges]
    recipe = {"merge_method": "passthrough", "slices": slices, "tokenizer_source": "union"}
    out = merged(recipe, tmp_path)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    found = load_file(out / "model.safetensors")
    assert (config["num_hidden_layers"], config["vocab_size"]) == (3, len(tokens))
    for name, own, other in ((EMBEDDINGS, "base", "a"), ("lm_head.weight", "a", "base")):
        sources = [(folder := models / one, AutoTokenizer.from_pretrained(folder).get_vocab()) for one in (own, other)]
        rows = [(load_file(folder / "model.safetensors")[name], places) for folder, places in sources]
        for token, number in tokens.items():
            values = [tensor[places[token]] for tensor, places in rows if token in places]
            assert torch.equal(found[name][number], values[0])


@pytest.mark.parametrize("entry", ["DIR/base+DIR/adapter", "DIR/adapter"])
def test_an_adapter_has_the_tokens_of_its_model(entry: str, models: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (tmp_path / "base").symlink_to(models / "base")
    name = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 8), f"{name}.lora_B.weight": torch.ones(8, 2)}
    save_file(tensors, adapter / "adapter_model.safetensors")
    keys = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "bias": "none"}
    keys["base_model_name_or_path"] = str(tmp_path / "base")
    (adapter / "adapter_config.json").write_text(json.dumps(keys), encoding="utf-8")
    recipe = {
        "merge_method": "dare_linear",
        "base_model": str(tmp_path / "base"),
        "models": [{"model": entry.replace("DIR", str(tmp_path))}, {"model": str(models / "b")}],
        "parameters": {"weight": 0.5},
        "tokenizer_source": "union",
    }
    found = load_file(merged(recipe, tmp_path / "run") / "model.safetensors")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "run" / "out").get_vocab()
    own = [load_file(models / one / "model.safetensors") for one in ("base", "b")]
    places = [AutoTokenizer.from_pretrained(models / one).get_vocab() for one in ("base", "b")]
    for token, number in tokens.items():
        rows = [one[EMBEDDINGS][where[token]] for one, where in zip(own, places, strict=True) if token in where]
        expected = (rows[0] + rows[-1]) / 2
        assert torch.allclose(found[EMBEDDINGS][number], expected, atol=1e-6), token
    layer = "model.layers.1.self_attn.q_proj.weight"
    assert torch.allclose(found[layer], own[0][layer] + 1 + (own[1][layer] - own[0][layer]) / 2, atol=1e-5)


def test_tied_heads_that_are_stored_too_are_compared_and_merged_once(tmp_path: Path) -> None:
    write_models(tmp_path, tie=True)
    for name in ("base", "a", "b"):
        file = tmp_path / name / "model.safetensors"
        tensors = load_file(file)
        save_file({**tensors, "lm_head.weight": tensors[EMBEDDINGS].clone()}, file, metadata={"format": "pt"})
    names = [tmp_path / name for name in ("base", "a", "b")]
    out = merged(linear(*names, tokenizer_source="union", chat_template="mistral"), tmp_path / "run")
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    assert "The chat template is the built-in mistral." in (out / "README.md").read_text(encoding="utf-8")


def test_rows_without_a_token_are_left_out_and_tokens_without_a_row_are_no_tokens(models: Path, tmp_path: Path) -> None:
    words = bytes_tokenizer("low lower lowest new newer newest")
    write_model(tmp_path / "wide", 5, words, rows=len(words) + 9)
    write_model(
        tmp_path / "narrow", 6, bytes_tokenizer("low lower", ["<gone>"]), rows=len(bytes_tokenizer("low lower"))
    )
    out = merged(linear(tmp_path / "wide", tmp_path / "narrow", tokenizer_source="union"), tmp_path / "run")
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    assert load_file(out / "model.safetensors")[EMBEDDINGS].shape[0] == len(tokens)
    assert "<gone>" not in tokens
    assert words.get_vocab().items() <= tokens.items()


def test_the_tokenizer_of_a_base_model_that_has_none_needs_no_tokens(models: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_model(tmp_path / name, number, bytes_tokenizer("low lower"))
        for path in (tmp_path / name).glob("tokenizer*"):
            path.unlink()
    out = merged(linear(tmp_path / "one", tmp_path / "two", tokenizer_source="base"), tmp_path / "run")
    assert not list(out.glob("tokenizer*"))
    config = tmp_path / "one" / "config.json"
    for name in ("one", "two"):
        config = tmp_path / name / "config.json"
        keys = {**json.loads(config.read_text(encoding="utf-8")), "model_type": "own", "architectures": ["OwnModel"]}
        config.write_text(json.dumps(keys), encoding="utf-8")
        bytes_tokenizer("low lower").save_pretrained(tmp_path / name)
    out = merged(linear(tmp_path / "one", tmp_path / "two", tokenizer_source="base"), tmp_path / "other")
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "one" / "tokenizer.json").read_bytes()
    with pytest.raises(api.CheckpointError, match="the rows of its tokens are not known"):
        api.plan(written(tmp_path, linear(tmp_path / "one", tmp_path / "two", tokenizer_source="union")), progress=None)
