"""Some steps of a merge over all tensors: absorb checkpoints into the state, write the merged model."""

from __future__ import annotations

from hubmerge.executor.device import pick_device
from hubmerge.executor.figures import Similarity, StepFigures, TensorFigures
from hubmerge.executor.holding import HeldCheckpoint, HeldModel, HeldState
from hubmerge.executor.incoming import Incoming
from hubmerge.executor.merging import goes_step_by_step, merge_steps
from hubmerge.executor.writing import WrittenModel, write_merged

__all__ = [
    "HeldCheckpoint",
    "HeldModel",
    "HeldState",
    "Incoming",
    "Similarity",
    "StepFigures",
    "TensorFigures",
    "WrittenModel",
    "goes_step_by_step",
    "merge_steps",
    "pick_device",
    "write_merged",
]
