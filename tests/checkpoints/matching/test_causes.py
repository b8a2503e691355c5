"""Tests of the causes that messages give for checkpoints that do not match."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import ALL_TENSORS, Checkpoint, Selection, align, open_checkpoint
from hubmerge.checkpoints.matching.causes import computation_notes, different_settings
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, selection_in, with_prefix, without, write_folder

Open = Callable[..., Checkpoint]
LAYERS, VOCABULARY, WIDTH = 2, 9, 4


def language(layers: int = LAYERS, vocabulary: int = VOCABULARY, width: int = WIDTH) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    shapes["model.norm.weight"] = (width,)
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{part}.weight": (width, width) for part in ("q_proj", "k_proj", "o_proj")}
    return random_tensors({**shapes, "lm_head.weight": (vocabulary, width)})


def config(layers: int = LAYERS, vocabulary: int = VOCABULARY, width: int = WIDTH, **more: Any) -> dict[str, Any]:
    return {"num_hidden_layers": layers, "vocab_size": vocabulary, "hidden_size": width, **more}


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_one(name: str, tensors: Mapping[str, torch.Tensor], settings: dict[str, Any] | None = None) -> Checkpoint:
        return open_checkpoint(write_folder(tmp_path / name, tensors, settings), name)

    return open_one


@pytest.fixture
def base(opened: Open) -> Checkpoint:
    return opened("base", language(), config())


def refused(base: Checkpoint, checkpoint: Checkpoint, selection: Selection = ALL_TENSORS) -> tuple[str, str]:
    with pytest.raises(CheckpointError) as caught:
        align(base, checkpoint, selection=selection)
    assert caught.value.context.tensor is not None
    return caught.value.message, caught.value.hint or ""


def test_another_vocabulary(base: Checkpoint, opened: Open) -> None:
    checkpoint = opened("tokens", language(vocabulary=11), config(vocabulary=11))
    with pytest.raises(CheckpointError) as caught:
        align(base, checkpoint)
    assert caught.value.message.startswith(
        "tokens: its vocabulary is not that of the base model base (vocab_size is 11, expected 9): tensor 'model.embed_"
    )
    assert "resize_token_embeddings()" in (caught.value.hint or "")
    assert "set base_model" not in (caught.value.hint or "")
    tables = ["model.embed_tokens.weight", "lm_head.weight"]
    merged = align(base, checkpoint, selection=selection_in(caught.value)).tensors
    assert set(merged) == set(without(language(), tables))


def test_another_width(base: Checkpoint, opened: Open) -> None:
    message, hint = refused(base, opened("wide", language(width=8), config(width=8)))
    assert message.startswith(
        "wide: most of its tensors do not match the base model base (hidden_size is 8, expected 4): tensor "
    )
    assert "set base_model to the model" in hint
    nested = opened("nested", language(width=8), {"text_config": config(width=8)})
    assert "(hidden_size is 8, expected 4)" in refused(base, nested)[0]


@pytest.mark.parametrize("layers", [1, 3])
def test_another_number_of_layers(base: Checkpoint, opened: Open, layers: int) -> None:
    message, hint = refused(base, opened("deep", language(layers), config(layers)))
    expected = f"(num_hidden_layers is {layers}, expected 2): tensors 'model.layers."
    assert message.startswith(f"deep: its layers are not those of the base model base {expected}")
    assert "set base_model to the model" in hint


def test_missing_layers(opened: Open) -> None:
    whole = opened("whole", language(6), config(6))
    message, hint = refused(whole, opened("part", language(4), config(6)))
    assert message.startswith(
        "part: it is incomplete, without model.layers.4, model.layers.5: tensors 'model.layers.4."
    )
    assert hint == "fetch the checkpoint again, or save it again with save_pretrained()"


@pytest.mark.parametrize("prefix", ["a.b.c.", "wrapped.in.four.modules."])
def test_another_prefix(base: Checkpoint, opened: Open, prefix: str) -> None:
    inside = {name: value for name, value in language().items() if name.startswith("model.")}
    plain = {name.removeprefix("model."): value for name, value in inside.items()}
    message, hint = refused(base, opened("wrapped", with_prefix(prefix, plain), config()))
    assert message.startswith(
        f"wrapped: its tensor names begin with '{prefix}', expected 'model.' as in the base model base: tensors "
    )
    assert "rename the tensors" in hint
    message, _ = refused(base, opened("whole", with_prefix(prefix, language()), config()))
    assert message.startswith(f"whole: its tensor names begin with '{prefix}', expected no prefix as in the base model")


def test_a_head_that_only_the_base_model_ties(opened: Open) -> None:
    """The class is not known, so that ties are known from the configs alone."""
    tied = opened("tied", without(language(), ["lm_head.weight"]), config(tie_word_embeddings=True))
    checkpoint = opened("own", language(), config(tie_word_embeddings=False))
    with pytest.raises(CheckpointError) as caught:
        align(tied, checkpoint)
    assert caught.value.message.startswith(
        "own: it does not tie its head to the embeddings, as the base model tied does: tensor 'lm_head.weight' is not"
    )
    assert set(align(tied, checkpoint, selection=selection_in(caught.value)).tensors) == set(tied.tensors)


def test_settings_are_compared_in_nested_configs_too(opened: Open) -> None:
    vlm = opened("vlm", language(), {"text_config": config(), "vision_config": {"hidden_size": 16}})
    assert different_settings(opened("text", language(), config()), vlm, ["hidden_size"]) is None
    found = different_settings(opened("other", language(), config(width=8)), vlm, ["hidden_size", "vocab_size"])
    assert found == "hidden_size is 8, expected 4 or 16"
    assert different_settings(opened("none", language()), vlm, ["hidden_size"]) is None


NESTED = {
    "model_type": "outer",
    "text_config": {"model_type": "inner", "hidden_act": "silu"},
    "vision_config": {"num_heads": 2},
}

SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "equal": ({"num_attention_heads": 2}, {"num_attention_heads": 2}, None),
    "heads": ({"num_attention_heads": 2}, {"num_attention_heads": 4}, "num_attention_heads is 4, expected 2"),
    "epsilon": ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 1e-6}, "rms_norm_eps is 1e-06, expected 1e-05"),
    "rotation": ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 5e5}}, "rope_theta is 500000, expected 10000"),
    "one number": ({"rope_theta": 10000}, {"rope_parameters": {"rope_theta": 1e4}}, None),
    "only there": ({}, {"rope_theta": 5e5}, None),
    "no computation": ({"dropout": 0.1, "dtype": "float32"}, {"dropout": 0.0, "dtype": "bfloat16"}, None),
    "another type": ({"hidden_act": "silu"}, {"model_type": "other", "hidden_act": "gelu"}, None),
    "a model inside": (NESTED, {"model_type": "inner", "hidden_act": "gelu"}, "hidden_act is gelu, expected silu"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_no_tensor_shows_are_named(opened: Open, name: str) -> None:
    of_base, of_checkpoint, expected = SETTINGS[name]
    start = opened("start", language(), {"model_type": "a", **of_base})
    tuned = [opened(label, language(), {"model_type": "a", **of_checkpoint}) for label in ("one", "two")]
    cause = "config.json has other settings than the base model's, which the merged model has"
    assert computation_notes(start, tuned) == ([f"one, two: {cause}: {expected}"] if expected else [])
