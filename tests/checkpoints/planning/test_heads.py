"""Tests of classification heads, which are found by the model's class and not only by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import (
    ALL_TENSORS,
    MergePlan,
    Selection,
    align,
    make_plan,
    open_checkpoint,
    weight_matrices,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.families import FAMILIES, LANGUAGE, make, save
from tests.checkpoints.files import random_tensors, write_folder

BERT = "BertForSequenceClassification"
ANIMALS = {0: "cat", 1: "dog", 2: "owl"}
COLORS = {0: "red", 1: "blue", 2: "grey"}

# The class, its config, and the glob for the module with the first tensor of its head.
CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "T5ForSequenceClassification": (FAMILIES["T5ForConditionalGeneration"], "classification_head.*"),
    "BartForSequenceClassification": (
        {
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "vocab_size": 20,
            "max_position_embeddings": 16,
        },
        "classification_head.*",
    ),
    "XLNetForSequenceClassification": (
        {"vocab_size": 20, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24},
        "logits_proj.*",
    ),
    "SegformerForSemanticSegmentation": (
        {
            "num_encoder_blocks": 1,
            "depths": [1],
            "sr_ratios": [1],
            "hidden_sizes": [16],
            "patch_sizes": [4],
            "strides": [4],
            "num_attention_heads": [2],
            "mlp_ratios": [2],
            "decoder_hidden_size": 16,
        },
        "decode_head.classifier.*",
    ),
    "LlamaForTokenClassification": (LANGUAGE, "score.*"),
    "XLMForSequenceClassification": (
        {"vocab_size": 20, "emb_dim": 16, "n_layers": 1, "n_heads": 2, "max_position_embeddings": 16},
        "sequence_summary.*",
    ),
}


def planned(base: Path, checkpoint: Path, selection: Selection = ALL_TENSORS) -> MergePlan:
    opened = open_checkpoint(base, "base")
    rule = weight_matrices(opened.config, opened.tensors)
    aligned = align(opened, open_checkpoint(checkpoint, "other"), selection=selection, ties=rule.ties)
    return make_plan(opened, [aligned], rule, selection=selection)


def refused(base: Path, checkpoint: Path, selection: Selection = ALL_TENSORS) -> CheckpointError:
    with pytest.raises(CheckpointError, match="belongs to a classification head for") as caught:
        planned(base, checkpoint, selection)
    return caught.value


def saved(family: str, folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    import transformers

    model_class = getattr(transformers, family)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return save(model_class(model_class.config_class(**config, **changes)), folder)


def renamed(folder: Path, prefix: str) -> Path:
    values = load_file(folder / "model.safetensors")
    save_file({prefix + name: value for name, value in values.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("family", CLASSES)
def test_other_classes_are_refused_and_the_hint_excludes_only_the_head(tmp_path: Path, family: str) -> None:
    config, glob = CLASSES[family]
    base = saved(family, tmp_path / "base", config, id2label=ANIMALS)
    other = saved(family, tmp_path / "other", config, id2label=COLORS)
    error = refused(base, other)
    assert "for red, blue, grey" in error.message
    assert f'exclude: ["{glob}"]' in (error.hint or "")
    head = {tensor.name for tensor in planned(base, other, Selection(exclude=(glob,))).kept if glob in tensor.reason}
    same = saved(family, tmp_path / "same", config, id2label=ANIMALS)
    assert head
    assert head <= {tensor.name for tensor in planned(base, same).merged}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("known", [True, False])
def test_a_prefix_does_not_hide_a_head(tmp_path: Path, prefix: str, *, known: bool) -> None:
    base = renamed(save(make(BERT), tmp_path / "base"), prefix)
    other = save(make(BERT, 3, id2label=COLORS), tmp_path / "other")
    if not known:
        (base / "config.json").write_text('{"model_type": "of somebody", "id2label": {"0": "a", "1": "b", "2": "c"}}')
    error = refused(base, other)
    assert f"'{prefix}classifier.bias'" in error.message
    assert f'exclude: ["{prefix}classifier.*"]' in (error.hint or "")


@pytest.mark.parametrize("include", [("*.weight",), ("bert.*", "*.bias"), ("[bc]*",)])
def test_an_include_of_more_than_the_head_does_not_override_the_check(tmp_path: Path, include: tuple[str, ...]) -> None:
    base = save(make(BERT), tmp_path / "base")
    other = save(make(BERT, 3, id2label=COLORS), tmp_path / "other")
    decided = (*include, "classifier.*")
    error = refused(base, other, Selection(include))
    assert f"include: {json.dumps(decided)}" in (error.hint or "")
    for globs in (decided, ("c*",), ("classifier.weight", "classifier.bias"), ("*",)):
        merged = {tensor.name for tensor in planned(base, other, Selection(globs)).merged}
        assert {"classifier.weight", "classifier.bias"} <= merged


def test_heads_with_fixed_classes_are_merged(tmp_path: Path) -> None:
    """Rows for start and end of an answer, and for next sentence or not, have one meaning in all models."""
    for family in ("BertForQuestionAnswering", "BertForNextSentencePrediction"):
        base = saved(family, tmp_path / family, LANGUAGE)
        assert not planned(base, base).kept


def test_a_head_of_an_unknown_class_is_found_by_its_rows(tmp_path: Path) -> None:
    tensors = random_tensors(
        {"body.linear.weight": (4, 4), "body.embed.weight": (3, 4), "body.scale": (), "output.weight": (3, 4)}
    )

    def written(name: str, **classes: Any) -> Path:
        return write_folder(tmp_path / name, tensors, {"model_type": "of somebody", **classes})

    base, other = written("base", id2label=ANIMALS), written("other", id2label=COLORS)
    error = refused(base, other)
    assert "'output.weight'" in error.message
    assert 'exclude: ["output.*"]' in (error.hint or "")
    kept = planned(base, other, Selection(exclude=("output.*",))).kept
    assert [tensor.name for tensor in kept] == ["output.weight"]
    assert not planned(base, written("same", id2label=ANIMALS)).kept
    assert not planned(written("no classes"), written("none either")).kept
