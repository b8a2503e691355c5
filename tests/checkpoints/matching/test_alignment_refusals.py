"""Checkpoints that do not match the base model: the cause, and selections that leave the cause out."""

from __future__ import annotations

import pytest
import torch

from hubmerge.checkpoints import (
    Selection,
    align,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, with_prefix, without
from tests.checkpoints.matching.towers import TOWER, WHOLE, Open, assert_reads, opened, refused
from tests.checks import every

__all__ = ["opened"]  # fixtures


def test_an_unexpected_tensor_is_refused_with_the_nearest_name(opened: Open) -> None:
    odd = {**without(TOWER, ["post_layernorm.weight"]), "post_layrnorm.weight": torch.ones(4)}
    error = refused(opened("base", TOWER), opened("odd", odd))
    assert "'post_layrnorm.weight'" in error.message
    assert "(nearest name: 'post_layernorm.weight')" in error.message


def test_a_missing_tensor_inside_a_component_is_refused(opened: Open) -> None:
    part = without(with_prefix("vision_model.", TOWER), ["vision_model.encoder.layers.0.q.bias"])
    error = refused(opened("base", WHOLE), opened("part", part))
    assert "'vision_model.encoder.layers.0.q.bias'" in error.message


def test_a_body_without_prefix_must_be_complete(opened: Open) -> None:
    error = refused(opened("base", TOWER), opened("part", without(TOWER, ["post_layernorm.weight"])))
    assert "'post_layernorm.weight'" in error.message


def test_another_shape_is_refused_with_both_shapes(opened: Open) -> None:
    wide = {**TOWER, "embeddings.position.weight": torch.ones(7, 4)}
    error = refused(opened("base", TOWER), opened("wide", wide))
    for text in ("'embeddings.position.weight'", "7 x 4", "5 x 4"):
        assert text in error.message


def test_integers_in_place_of_weights_are_refused(opened: Open) -> None:
    quantized = {**TOWER, "encoder.layers.0.q.weight": torch.ones(4, 4, dtype=torch.int8)}
    error = refused(opened("base", TOWER), opened("quantized", quantized))
    assert "'encoder.layers.0.q.weight'" in error.message
    assert "int8" in error.message


def test_two_tensors_with_one_name_in_the_base_are_refused(opened: Open) -> None:
    both = {**with_prefix("vision_model.", TOWER), "post_layernorm.weight": torch.ones(4)}
    error = refused(opened("base", TOWER), opened("both", both))
    assert "both match 'post_layernorm.weight'" in error.message


def test_ambiguous_names_are_refused(opened: Open) -> None:
    stack = random_tensors({"block.0.q.weight": (4, 4), "norm.weight": (4,)})
    base = opened("base", {**with_prefix("encoder.", stack), **with_prefix("decoder.", stack)})
    error = refused(base, opened("stack", stack))
    assert "more than one way" in error.message
    assert "`encoder.`" in error.message
    assert "`decoder.`" in error.message


def test_another_architecture_is_refused(opened: Open) -> None:
    error = refused(opened("base", TOWER), opened("other", random_tensors({"x.weight": (3,), "y.weight": (3,)})))
    assert "'x.weight' and 1 more" in error.message


def test_a_checkpoint_with_only_buffers_is_refused(opened: Open) -> None:
    error = refused(opened("base", TOWER), opened("buffers", {"embeddings.position_ids": torch.arange(5)}))
    assert "none of its 1 tensors" in error.message


def test_excluded_tensors_may_be_missing_unexpected_or_mismatched(opened: Open) -> None:
    head = random_tensors({"classifier.weight": (10, 4), "classifier.bias": (10,)})
    other_head = random_tensors({"classifier.weight": (3, 4), "classifier.bias": (3,)})
    heads = Selection(exclude=("classifier.*",))
    base = opened("base", {**TOWER, **head})
    for name, extra in (("none", {}), ("other", other_head), ("odd", {"classifier.scale": torch.ones(1)})):
        aligned = align(base, opened(name, {**TOWER, **extra}), selection=heads)
        assert_reads(aligned, TOWER)
        assert {ignored.name for ignored in aligned.ignored} == set(extra)
    refused(base, opened("without exclusion", {**TOWER, **other_head}))


def test_the_hint_for_an_unexpected_component_is_a_selection_that_works(opened: Open) -> None:
    base, whole = opened("base", TOWER), opened("whole", WHOLE)
    hint = refused(base, whole).hint or ""
    patterns = tuple(part for part in hint.split('"') if "," not in part and ":" not in part and part != "]}")
    assert set(patterns) == {"text_model.*", "visual_projection.*", "logit_scale"}
    assert_reads(align(base, whole, selection=Selection(exclude=patterns)), TOWER)


@pytest.mark.parametrize(
    ("selection", "message", "hint"),
    [
        (
            Selection(include=("vision_model",)),
            'no tensor of the base model is left to merge under `tensors: include` in the recipe ("vision_model")',
            "for all tensors of vision_model write `vision_model.*`",
        ),
        (
            Selection(exclude=("*", "logit_scale")),
            "no tensor of the base model is left to merge under `tensors: exclude` in the recipe",
            "globs match whole names: `vision_model.*`, `text_model.*`, `*.bias`",
        ),
        (
            Selection(include=("*.bias",), exclude=("*.bias",)),
            "no tensor of the base model is left to merge under `tensors: include` and `tensors: exclude` in",
            "globs match whole names",
        ),
    ],
)
def test_a_selection_that_covers_no_tensor_is_refused(
    opened: Open, selection: Selection, message: str, hint: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        align(opened("base", WHOLE), opened("tower", TOWER), selection=selection)
    assert caught.value.message.startswith(f"base: {message}")
    examples = ("vision_model.embeddings.class_embedding", "text_model.embeddings.token.weight")
    assert every(repr(name) in caught.value.message for name in (*examples, "visual_projection.weight"))
    assert hint in (caught.value.hint or "")


def test_only_included_tensors_are_required(opened: Open) -> None:
    only = Selection(include=("encoder.*",))
    part = {name: tensor for name, tensor in TOWER.items() if name.startswith("encoder.")}
    assert_reads(align(opened("base", TOWER), opened("part", part), selection=only), part)
    assert_reads(align(opened("base", TOWER), opened("all", TOWER), selection=only), part)
