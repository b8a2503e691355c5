"""One step of a merge over all tensors: absorb a checkpoint into the state, write the merged model."""

from __future__ import annotations

from hubmerge.executor.device import pick_device
from hubmerge.executor.figures import Similarity, StepFigures, TensorFigures
from hubmerge.executor.holding import HeldCheckpoint, HeldModel, HeldState
from hubmerge.executor.merging import merge_step
from hubmerge.executor.writing import WrittenModel, write_merged

__all__ = [
    "HeldCheckpoint",
    "HeldModel",
    "HeldState",
    "Similarity",
    "StepFigures",
    "TensorFigures",
    "WrittenModel",
    "merge_step",
    "pick_device",
    "write_merged",
]
