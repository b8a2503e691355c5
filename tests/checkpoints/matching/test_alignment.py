"""Tests of the alignment of checkpoints with a base model: layouts, buffers, ties, selections and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hubmerge.checkpoints import (
    Selection,
    align,
    find_alignment,
    match,
    open_checkpoint,
    open_headers,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, with_prefix, without
from tests.checkpoints.matching.towers import OTHER_TOWER, PROJECTION, TOWER, WHOLE, Open, assert_reads, opened, refused
from tests.checkpoints.models import save

__all__ = ["opened"]  # fixtures


@pytest.mark.parametrize("stored", ["", "vision_model.", "module.vision_model."])
@pytest.mark.parametrize("base_is", ["vision_model.", ""])
def test_a_tower_in_every_layout(opened: Open, stored: str, base_is: str) -> None:
    aligned = align(opened("base", with_prefix(base_is, TOWER)), opened("fine-tuned", with_prefix(stored, TOWER)))
    assert_reads(aligned, with_prefix(base_is, TOWER))
    assert (aligned.absent, aligned.ignored) == ((), ())
    assert aligned.label == "fine-tuned"


@pytest.mark.parametrize("stored", ["", "vision_model."])
def test_a_tower_into_a_whole_model(opened: Open, stored: str) -> None:
    aligned = align(opened("base", WHOLE), opened("fine-tuned", with_prefix(stored, TOWER)))
    assert_reads(aligned, with_prefix("vision_model.", TOWER))
    assert set(aligned.absent) == {"text_model", "visual_projection", "logit_scale"}
    assert aligned.stored_name("vision_model.post_layernorm.weight") == f"{stored}post_layernorm.weight"


def test_the_text_tower_is_placed_in_the_text_tower(opened: Open) -> None:
    aligned = align(opened("base", WHOLE), opened("fine-tuned", OTHER_TOWER))
    assert_reads(aligned, with_prefix("text_model.", OTHER_TOWER))


def test_a_tower_with_projection_and_a_whole_model(opened: Open) -> None:
    base = opened("base", WHOLE)
    with_projection = {**with_prefix("vision_model.", TOWER), **PROJECTION}
    assert_reads(align(base, opened("projected", with_projection)), with_projection)
    assert_reads(align(base, opened("whole", WHOLE)), WHOLE)


@pytest.mark.parametrize("base_name", ["CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_towers_saved_by_transformers_match_every_base(tmp_path: Path, base_name: str) -> None:
    base = open_checkpoint(save(base_name, tmp_path / "base"))
    tower = open_checkpoint(save("CLIPVisionModel", tmp_path / "tower"))
    aligned = align(base, tower)
    assert len(aligned.tensors) == len(tower.tensors)
    prefix = "" if base_name == "CLIPVisionModel" else "vision_model."
    for name in tower.tensors:
        assert torch.equal(aligned.read(prefix + name), tower.read(name))


def test_encoders_with_and_without_the_prefix_of_a_head_model(opened: Open) -> None:
    body = random_tensors({"embeddings.word.weight": (9, 4), "encoder.layer.0.q.weight": (4, 4)})
    head = random_tensors({"cls.predictions.weight": (4, 4)})
    base = opened("base", {**with_prefix("bert.", body), **head})
    aligned = align(base, opened("body", body))
    assert_reads(aligned, with_prefix("bert.", body))
    assert aligned.absent == ("cls",)


def test_old_spellings_of_layer_norms(opened: Open) -> None:
    new = random_tensors({"bert.LayerNorm.weight": (4,), "bert.LayerNorm.bias": (4,), "bert.q.weight": (4, 4)})
    old = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
        for name, tensor in new.items()
    }
    assert set(old) != set(new)
    assert_reads(align(opened("base", old), opened("fine-tuned", new)), old)
    assert_reads(align(opened("base2", new), opened("fine-tuned2", old)), new)


def test_mixed_dtypes_are_read_as_stored(opened: Open) -> None:
    half = {name: tensor.to(torch.bfloat16) for name, tensor in TOWER.items()}
    aligned = align(opened("base", TOWER), opened("half", half))
    assert_reads(aligned, half)
    assert aligned.tensors["encoder.layers.0.q.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("where", ["base", "checkpoint", "both"])
def test_buffers_are_ignored(opened: Open, where: str) -> None:
    buffers = {
        "embeddings.position_ids": torch.arange(5),
        "rotary.inv_freq": torch.ones(3),
        "h.0.attn.bias": torch.ones(1, 1, 4, 4),
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "encoder.relative_position_index": torch.arange(4),
    }
    base = {**TOWER, **(buffers if where != "checkpoint" else {})}
    fine_tuned = {**TOWER, **(buffers if where != "base" else {})}
    aligned = align(opened("base", base), opened("fine-tuned", fine_tuned))
    assert_reads(aligned, TOWER)
    assert {ignored.name for ignored in aligned.ignored} == (set() if where == "base" else set(buffers))
    assert not [ignored.name for ignored in aligned.ignored if not ignored.reason]


TIES = {"lm_head.weight": "model.embed.weight"}
LANGUAGE = random_tensors({"model.embed.weight": (9, 4), "model.layers.0.q.weight": (4, 4)})


def test_a_tied_tensor_that_is_missing_is_read_from_its_partner(opened: Open) -> None:
    base = opened("base", {**LANGUAGE, "lm_head.weight": LANGUAGE["model.embed.weight"].clone()})
    aligned = align(base, opened("tied", LANGUAGE), ties=TIES)
    assert_reads(aligned, {**LANGUAGE, "lm_head.weight": LANGUAGE["model.embed.weight"]})
    assert aligned.absent == ()
    assert align(base, opened("untied", LANGUAGE)).absent == ("lm_head",)


def test_a_tied_tensor_that_only_the_checkpoint_stores_is_ignored(opened: Open) -> None:
    stored = {**LANGUAGE, "lm_head.weight": LANGUAGE["model.embed.weight"].clone()}
    base, checkpoint = opened("base", LANGUAGE), opened("stored", stored)
    aligned = align(base, checkpoint, ties=TIES)
    assert_reads(aligned, LANGUAGE)
    assert [(ignored.name, ignored.reason) for ignored in aligned.ignored] == [
        ("lm_head.weight", "tied to model.embed.weight")
    ]
    refused(base, checkpoint)


def test_a_tied_tensor_with_other_values_is_refused(opened: Open) -> None:
    differing = {**LANGUAGE, "lm_head.weight": torch.zeros(9, 4)}
    aligned = align(opened("base", LANGUAGE), opened("untied", differing), ties=TIES)
    with pytest.raises(CheckpointError, match=r"untied: tensors 'lm_head\.weight' and 'model\.embed\.weight' differ"):
        aligned.check_ties()
    align(opened("base2", LANGUAGE), opened("tied", LANGUAGE), ties=TIES).check_ties()


def test_a_tied_tensor_stored_only_under_its_alias(opened: Open) -> None:
    stored = {**without(LANGUAGE, ["model.embed.weight"]), "lm_head.weight": LANGUAGE["model.embed.weight"]}
    aligned = align(opened("base", LANGUAGE), opened("other name", stored), ties=TIES)
    assert_reads(aligned, LANGUAGE)
    aligned.check_ties()


def headers_of(folder: Path) -> dict[str, bytes]:
    content = (folder / "model.safetensors").read_bytes()
    return {"model.safetensors": content[: 8 + int.from_bytes(content[:8], "little")]}


def test_an_alignment_planned_from_headers_is_applied_to_the_files(opened: Open, tmp_path: Path) -> None:
    base, tower = opened("base", WHOLE), opened("tower", TOWER)
    headers = open_headers(headers_of(tmp_path / "tower"), tower.config, "tower")
    alignment = match(base, headers)
    assert alignment == match(base, tower)
    assert alignment.layout == "`vision_model.` added to the names"
    assert_reads(alignment.apply(tower), with_prefix("vision_model.", TOWER))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"post_layernorm.weight": torch.ones(5)}, "'post_layernorm.weight' was 4, float32, now it is 5, float32"),
        (
            {"post_layernorm.weight": torch.ones(4, dtype=torch.float16)},
            "'post_layernorm.weight' was 4, float32, now it is 4, float16",
        ),
        ({"post_layernorm.bias": torch.ones(4)}, "'post_layernorm.bias' was missing, now it is 4, float32"),
        ({"post_layernorm.weight": None}, "'post_layernorm.weight' was 4, float32, now it is missing"),
    ],
)
def test_an_alignment_refuses_files_that_were_not_planned(
    opened: Open, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    alignment = match(opened("base", WHOLE), opened("tower", TOWER))
    changed = {name: tensor for name, tensor in {**TOWER, **changes}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=r"^changed: the files changed after the merge was planned: ") as caught:
        alignment.apply(opened("changed", changed))
    assert caught.value.message.endswith(message)
    assert caught.value.context.tensor == next(iter(changes))


def test_tied_tensors_that_base_and_checkpoint_both_store_are_compared(opened: Open) -> None:
    both = {**LANGUAGE, "lm_head.weight": LANGUAGE["model.embed.weight"].clone()}
    alignment = match(opened("base", both), opened("tied", both), ties=TIES)
    assert alignment.tied == (("lm_head.weight", "model.embed.weight"),)
    alignment.apply(opened("tied again", both)).check_ties()
    with pytest.raises(CheckpointError, match="differ, though the base model's config ties them"):
        alignment.apply(opened("untied", {**both, "lm_head.weight": torch.zeros(9, 4)})).check_ties()


def test_find_alignment_returns_the_error_that_match_raises(opened: Open) -> None:
    base, other = opened("base", TOWER), opened("other", without(TOWER, ["post_layernorm.weight"]))
    error = find_alignment(base, other)
    assert isinstance(error, CheckpointError)
    with pytest.raises(CheckpointError) as caught:
        match(base, other)
    assert str(caught.value) == str(error)
    assert caught.value.context.tensor == "post_layernorm.weight"
    excluded = Selection(exclude=("post_layernorm.*",))
    assert find_alignment(base, other, selection=excluded) == match(base, other, selection=excluded)


def test_raw_chunks_and_close_use_the_checkpoint(opened: Open) -> None:
    aligned = align(opened("base", WHOLE), opened("fine-tuned", TOWER))
    name = "vision_model.encoder.layers.0.q.weight"
    raw = TOWER["encoder.layers.0.q.weight"].numpy().tobytes()
    assert b"".join(aligned.raw_chunks(name)) == raw
    assert aligned.files == ("model.safetensors",)
    aligned.close()
    assert b"".join(aligned.raw_chunks(name)) == raw
    with pytest.raises(CheckpointError, match="no tensor"):
        aligned.read("text_model.final_layer_norm.weight")
