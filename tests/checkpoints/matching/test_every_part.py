"""Sweep: every model inside of a class of transformers is found in its place when it is a checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Checkpoint, Origin, TensorInfo, find_alignment, weight_matrices
from hubmerge.checkpoints.matching.alignment import Alignment
from tests.checkpoints.model_class.sweep import built, config_types

FEWEST_PARTS = 300
EQUAL_PARTS = 20
"""Most parts that have an equal one beside them, such as a second vision tower, and are refused for that reason."""


def header(label: str, model: Any, config: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint with the parameters of a model, without values."""
    tied = model.all_tied_weights_keys
    shapes = {name: tuple(one.shape) for name, one in model.named_parameters() if name not in tied}
    tensors = {name: TensorInfo(name, shape, torch.float32, "weights", 0, 4) for name, shape in shapes.items()}
    return Checkpoint(Origin(label), tensors, config, {})


@pytest.mark.slow
def test_every_model_inside_of_another_finds_its_place() -> None:
    found, equal = 0, []
    for model_type in config_types():
        whole = built(model_type)
        if whole is None:
            continue
        base = header(model_type, whole.model, whole.config)
        rule = weight_matrices(base.config, base.tensors)
        for path in rule.parts.models:
            part = whole.model.get_submodule(path)
            checkpoint = header(path, part, {"model_type": part.config.model_type})
            if not checkpoint.tensors:
                continue
            alignment = find_alignment(
                base, checkpoint, ties=rule.ties, buffers=rule.buffers, spare=rule.spare, parts=rule.parts
            )
            if isinstance(alignment, Alignment):
                places = {stored: name for name, stored in alignment.stored_names.items()}
                for name in checkpoint.tensors:
                    expected = f"{path}.{name}"
                    assert places[name] == rule.ties.get(expected, expected), model_type
                found += 1
            else:
                assert "in more than one way" in alignment.message, (model_type, alignment)
                equal.append(f"{model_type}: {path}")
    assert found > FEWEST_PARTS
    assert len(equal) <= EQUAL_PARTS, equal
