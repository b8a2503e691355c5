"""What comes into a tensor, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import BaseModel

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.stats.stats import TensorStats


@dataclass(frozen=True)
class StepInput:
    """What one step absorbs: a checkpoint under the base model's names, and the method's parameters for a tensor."""

    checkpoint: Checkpoint
    parameters_for: Callable[[str], BaseModel]


@dataclass(frozen=True)
class TensorStep:
    """What became of one tensor in one step: its figures, and its length and sketch in one row (empty without)."""

    figures: TensorStats
    sketch: torch.Tensor


def part_key(part: str, name: str) -> str:
    """What a method's part for a tensor is called in the state."""
    return f"{part}/{name}"


def sketch_row(length: float, sketched: torch.Tensor) -> torch.Tensor:
    """What `TensorStep` keeps of a task vector's length and sketch."""
    return torch.cat([torch.tensor([length], dtype=torch.float32), sketched])


def grows_beyond(incoming: StepInput, tensor: PlannedTensor, step: int) -> CheckpointError:
    """The error about an accumulated delta that is not finite any more."""
    return CheckpointError(
        f"{incoming.checkpoint.label}: tensor {tensor.name!r} grows beyond what float64 holds in step {step}",
        hint="do not merge this checkpoint; its values are out of all proportion",
    )
