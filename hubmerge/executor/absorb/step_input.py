"""Input of a step, and the result of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import BaseModel

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.read_out import ReadOut
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.methods import Method


@dataclass(frozen=True)
class Merge:
    """Inputs of a merge that all its steps share.

    The accumulated delta and its parts are rounded to `state_dtype` after every step, whether a state is written then
    or not. So batches and interruptions do not change the result.
    """

    base: Checkpoint
    method: Method
    plan: MergePlan
    state_dtype: torch.dtype = torch.float64

    def variant(self, step_input: StepInput) -> Method:
        """Return the method in the variant that the parameters of a step select."""
        return self.method.variant_for(self.model_parameters(step_input))

    def model_parameters(self, step_input: StepInput) -> BaseModel:
        """Return the parameters of a step that concern the whole model: those of the method's first tensor."""
        return step_input.parameters_for(self._first)

    def reading(self, parameters_for: Callable[[str], BaseModel]) -> ReadOut:
        """Return the read-out of the method with some parameters, also if it does not read states."""
        return ReadOut(self.method.variant_for(parameters_for(self._first)), parameters_for, self._first)

    @property
    def _first(self) -> str:
        """The tensor whose parameters are those of the whole model."""
        return (*self.method_tensors, *self.plan.merged)[0].name

    def read_out(self, step_input: StepInput) -> ReadOut | None:
        """Return the read-out of a step; None if the merged delta is the accumulated delta over the scale."""
        method = self.variant(step_input)
        return ReadOut(method, step_input.parameters_for) if method.reads_state else None

    @property
    def method_tensors(self) -> tuple[PlannedTensor, ...]:
        """Tensors that the method merges: all merged tensors except statistics, which are averaged."""
        return tuple(tensor for tensor in self.plan.merged if tensor.action != "average")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the merged tensors."""
        return {tensor.name: tensor.shape for tensor in self.plan.merged}


@dataclass(frozen=True)
class StepInput:
    """A checkpoint aligned with the base model, and the method's parameters for each tensor.

    `sign` is -1 if the checkpoint is taken out of the merge.
    """

    checkpoint: Checkpoint
    parameters_for: Callable[[str], BaseModel]
    sign: int = 1


@dataclass(frozen=True)
class TensorStep:
    """One tensor in one step: its statistics, and norm and sketch of its task vector in one row, float32.

    The row is empty if no sketches are made.
    """

    stats: TensorStats
    sketch: torch.Tensor


def sketch_row(norm: float, sketch: torch.Tensor) -> torch.Tensor:
    """Return norm and sketch of a task vector in one row."""
    return torch.cat([torch.tensor([norm], dtype=torch.float32), sketch])


def overflow_error(step_input: StepInput, tensor: PlannedTensor, step: int) -> CheckpointError:
    """Return the error about an accumulated delta that is no longer finite."""
    return CheckpointError(
        f"{step_input.checkpoint.label}: tensor {tensor.name!r} overflows float64 in step {step}",
        hint="do not merge this checkpoint; its values are abnormally large",
        tensor=tensor.name,
    )
