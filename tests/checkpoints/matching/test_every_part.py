"""Sweep: every model inside of a class of transformers is found in its place when it is a checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Checkpoint, MatrixRule, Origin, TensorInfo, find_alignment, weight_matrices
from hubmerge.checkpoints.matching.alignment import Alignment
from hubmerge.errors import CheckpointError
from tests.checkpoints.model_class.sweep import built, config_types
from tests.layouts.parts import EQUAL_PARTS, FEWEST_PARTS


def header(label: str, model: Any, config: Mapping[str, Any], prefix: str = "") -> Checkpoint:
    """Return a checkpoint with the parameters that a model has in its files, without values."""
    tied = getattr(model, "all_tied_weights_keys", {})
    named = model.named_parameters(remove_duplicate=False)
    shapes = {f"{prefix}{name}": tuple(one.shape) for name, one in named if name not in tied}
    tensors = {name: TensorInfo(name, shape, torch.float32, "weights", 0, 4) for name, shape in shapes.items()}
    return Checkpoint(Origin(label), tensors, config, {})


def found(base: Checkpoint, rule: MatrixRule, checkpoint: Checkpoint) -> Alignment | CheckpointError:
    return find_alignment(base, checkpoint, ties=rule.ties, buffers=rule.buffers, spare=rule.spare, parts=rule.parts)


def models_inside(model_type: str) -> Iterator[tuple[str, Checkpoint, MatrixRule, Any]]:
    """Yield each model inside of the class of a type: its path, the whole model, its rule, and the part."""
    whole = built(model_type)
    if whole is None:
        return
    base = header(model_type, whole.model, whole.config)
    rule = weight_matrices(base.config, base.tensors)
    for path in rule.parts.models:
        yield path, base, rule, whole.model.get_submodule(path)


def check_places(alignment: Alignment, rule: MatrixRule, path: str, prefix: str, names: Mapping[str, Any]) -> None:
    places: dict[str, set[str]] = {}
    for name, stored in alignment.stored_names.items():
        places.setdefault(stored, set()).add(name)
    for name in names:
        expected = f"{path}.{name.removeprefix(prefix)}"
        assert places[name] & {expected, rule.ties.get(expected, expected)}, (alignment.label, name)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "model."])
def test_every_model_inside_of_another_finds_its_place(prefix: str) -> None:
    """`model.` is the prefix of a language model in a class with a head."""
    count, refused = 0, set()
    for model_type in config_types():
        for path, base, rule, part in models_inside(model_type):
            checkpoint = header(path, part, {"model_type": part.config.model_type}, prefix)
            if not checkpoint.tensors:
                continue
            alignment = found(base, rule, checkpoint)
            if isinstance(alignment, Alignment):
                check_places(alignment, rule, path, prefix, checkpoint.tensors)
                count += 1
            else:
                assert "in more than one way" in alignment.message, (model_type, alignment)
                refused.add((model_type, path))
    assert count >= FEWEST_PARTS
    assert refused == set(EQUAL_PARTS)


@pytest.mark.parametrize(("model_type", "path"), [("t5gemma2", "decoder"), ("csm", "depth_decoder")])
def test_a_part_whose_embeddings_are_tied_to_another_part(model_type: str, path: str) -> None:
    inside = {place: (base, rule, part) for place, base, rule, part in models_inside(model_type)}
    base, rule, part = inside[path]
    checkpoint = header(path, part, {"model_type": part.config.model_type})
    alignment = found(base, rule, checkpoint)
    assert isinstance(alignment, Alignment)
    check_places(alignment, rule, path, "", checkpoint.tensors)
