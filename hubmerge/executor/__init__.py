"""Some steps of a merge over all tensors: absorb checkpoints into the state, write the merged model."""

from __future__ import annotations

from hubmerge.executor.absorb.merge_steps import goes_step_by_step, merge_steps
from hubmerge.executor.absorb.step_input import StepInput
from hubmerge.executor.in_memory import InMemoryCheckpoint, InMemoryModel, InMemoryState
from hubmerge.executor.parallel.device import pick_device
from hubmerge.executor.stats.stats import Similarity, StepStats, TensorStats
from hubmerge.executor.write_model import WrittenModel, write_merged

__all__ = [
    "InMemoryCheckpoint",
    "InMemoryModel",
    "InMemoryState",
    "Similarity",
    "StepInput",
    "StepStats",
    "TensorStats",
    "WrittenModel",
    "goes_step_by_step",
    "merge_steps",
    "pick_device",
    "write_merged",
]
