"""Tensors with a row for each token, found by the model class."""

from __future__ import annotations

from typing import Any

import pytest

from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.embeddings import Embeddings, find_embeddings

SMALL = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 12}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_key_value_heads": 2, **SMALL}
BERT = {"model_type": "bert", "architectures": ["BertForMaskedLM"], **SMALL}
T5 = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 8, "d_kv": 4, "num_heads": 2}
VISION = {"model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
LLAVA = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "text_config": LLAMA,
    "vision_config": {**VISION, "num_hidden_layers": 1, "image_size": 4, "patch_size": 2},
}
HEADS = ["cls.predictions.bias", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"]


@pytest.mark.parametrize(
    ("config", "names", "nested"),
    [
        (LLAMA, ["model.embed_tokens.weight", "lm_head.weight"], ()),
        ({**LLAMA, "architectures": ["LlamaModel"]}, ["embed_tokens.weight"], ()),
        ({**BERT, "tie_word_embeddings": False}, ["bert.embeddings.word_embeddings.weight", *HEADS], ()),
        ({**T5, "d_ff": 8, "num_layers": 1, "vocab_size": 12}, ["shared.weight", "lm_head.weight"], ()),
        (LLAVA, ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"], ("text_config",)),
    ],
    ids=["llama", "bare", "bert", "t5", "llava"],
)
def test_tensors_with_a_row_for_each_token_are_found_by_the_class(
    config: dict[str, Any], names: list[str], nested: tuple[str, ...]
) -> None:
    found = find_embeddings(config, [*names, "model.layers.0.mlp.up_proj.weight"])
    assert isinstance(found, Embeddings)
    assert (dict(found.axes), found.nested) == (dict.fromkeys(names, 0), nested)
    assert [found.stored_name(role) for role in found.roles.values()] == names


def test_a_tied_head_is_read_from_the_embeddings_and_a_class_without_tokens_is_unknown() -> None:
    found = find_embeddings({**LLAMA, "tie_word_embeddings": True}, ["model.embed_tokens.weight"])
    assert isinstance(found, Embeddings)
    assert found.stored_name("lm_head.weight") == "model.embed_tokens.weight"
    assert isinstance(find_embeddings({**VISION, "num_hidden_layers": 1}, ["x.weight"]), UnknownClass)
    assert isinstance(find_embeddings({"model_type": "nothing"}, ["x.weight"]), UnknownClass)
