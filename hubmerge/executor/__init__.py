"""One pass over all tensors for a batch of steps: merge checkpoints into the state, and write the merged model."""

from __future__ import annotations

from hubmerge.executor.absorb.add_states import add_states
from hubmerge.executor.absorb.merge_steps import merge_steps, needs_single_steps
from hubmerge.executor.absorb.step_input import Merge, StepInput
from hubmerge.executor.in_memory import InMemoryCheckpoint, InMemoryModel, InMemoryState
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parallel.device import pick_device
from hubmerge.executor.read_out import ReadOut
from hubmerge.executor.stats.stats import Similarity, StepStats, TensorStats
from hubmerge.executor.write_model import WrittenModel, write_merged

__all__ = [
    "DEFAULT_CONTEXT",
    "ExecutorContext",
    "InMemoryCheckpoint",
    "InMemoryModel",
    "InMemoryState",
    "Merge",
    "ReadOut",
    "Similarity",
    "StepInput",
    "StepStats",
    "TensorStats",
    "WrittenModel",
    "add_states",
    "merge_steps",
    "needs_single_steps",
    "pick_device",
    "write_merged",
]
