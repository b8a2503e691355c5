"""Tensors of a CLIP model and of its towers, and checkpoints with these tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from hubmerge.checkpoints import (
    ALL_TENSORS,
    AlignedCheckpoint,
    Checkpoint,
    Selection,
    align,
    open_checkpoint,
)
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, with_prefix, write_folder

Open = Callable[[str, Mapping[str, torch.Tensor]], Checkpoint]
TOWER = random_tensors(
    {
        "embeddings.class_embedding": (4,),
        "embeddings.position.weight": (5, 4),
        "encoder.layers.0.q.weight": (4, 4),
        "encoder.layers.0.q.bias": (4,),
        "post_layernorm.weight": (4,),
    }
)
OTHER_TOWER = random_tensors(
    {
        "embeddings.token.weight": (9, 4),
        "encoder.layers.0.q.weight": (4, 4),
        "encoder.layers.0.q.bias": (4,),
        "final_layer_norm.weight": (4,),
    },
    seed=1,
)
PROJECTION = random_tensors({"visual_projection.weight": (3, 4)})
WHOLE = {
    **with_prefix("vision_model.", TOWER),
    **with_prefix("text_model.", OTHER_TOWER),
    **PROJECTION,
    "logit_scale": torch.tensor(2.0),
}


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    def open_one(name: str, tensors: Mapping[str, torch.Tensor]) -> Checkpoint:
        return open_checkpoint(write_folder(tmp_path / name, tensors), name)

    return open_one


def assert_reads(aligned: AlignedCheckpoint, expected: Mapping[str, torch.Tensor]) -> None:
    assert set(aligned.tensors) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(aligned.read(name), tensor)
        assert aligned.tensors[name].name == name
        assert aligned.tensors[name].shape == tuple(tensor.shape)


def refused(base: Checkpoint, checkpoint: Checkpoint, selection: Selection = ALL_TENSORS) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        align(base, checkpoint, selection=selection)
    assert checkpoint.label in caught.value.message
    assert caught.value.hint
    return caught.value
