"""The merged delta of a state: the accumulated delta over the scale, or what the method reads out of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from pydantic import BaseModel
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.parts import is_turned, part_key, state_parts
from hubmerge.executor.reading import ELEMENTS_AT_ONCE
from hubmerge.executor.state import State
from hubmerge.methods import Method, ReadInput

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ReadOut:
    """A method that reads states, with its parameters for each tensor.

    `whole` is the tensor whose parameters are those of the whole model. A method that does not read states divides the
    accumulated delta by its scale.
    """

    method: Method
    parameters_for: Callable[[str], BaseModel]
    whole: str = ""

    def delta(self, state: State, tensor: PlannedTensor, device: torch.device = CPU) -> torch.Tensor:
        """Return the merged delta of one tensor, float64, on the CPU.

        Raises:
            CheckpointError: a decomposition failed.
        """
        accumulated = state.read(tensor.name).to(device)
        if not self.method.reads_state:
            return (accumulated / self.method.scale(state.manifest.norms, self.parameters_for(self.whole))).cpu()
        parts = {name: _part(state, name, tensor, device) for name in state_parts(self.method, tensor)}
        parameters, norms = self.parameters_for(tensor.name), state.manifest.norms
        if tensor.action != "merge-matrix":
            return self.method.read(ReadInput(accumulated, parts, parameters, norms)).cpu()
        try:
            if accumulated.dim() == 2 or not self.method.has_matrix_form:
                return self._matrix(tensor, ReadInput(accumulated, parts, parameters, norms)).cpu()
            merged = torch.empty_like(accumulated)
            for number, matrix in enumerate(accumulated):
                own = {name: values[number] for name, values in parts.items()}
                merged[number] = self._matrix(tensor, ReadInput(matrix, own, parameters, norms))
            return merged.cpu()
        except LinAlgError as error:
            raise CheckpointError(
                f"{state.label}: step {state.step}: tensor {tensor.name!r}: {error}",
                hint=f"give {self.method.name} a larger ridge in `parameters`, or choose another method",
                tensor=tensor.name,
            ) from error

    def _matrix(self, tensor: PlannedTensor, matrix: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of one weight matrix as it is stored."""
        if not is_turned(self.method, tensor):
            return self.method.read_matrix(matrix)
        return self.method.read_matrix(replace(matrix, accumulated=matrix.accumulated.T)).T


def delta_pieces(
    state: State, tensor: PlannedTensor, read_out: ReadOut | None = None, device: torch.device = CPU
) -> Iterator[torch.Tensor]:
    """Yield the merged delta of one tensor, float64, flat, in pieces of ELEMENTS_AT_ONCE that the caller may change."""
    if read_out is None:
        for piece in state.read_pieces(tensor.name, ELEMENTS_AT_ONCE):
            piece /= state.scale
            yield piece
        return
    yield from read_out.delta(state, tensor, device).contiguous().view(-1).split(ELEMENTS_AT_ONCE)


def _part(state: State, part: str, tensor: PlannedTensor, device: torch.device) -> torch.Tensor:
    key = part_key(part, tensor.name)
    values = state.read_part(key)
    if values is None:
        raise CheckpointError(
            f"{state.label}: the state of step {state.step} has no part {key!r}",
            hint="it was merged by another method; merge the checkpoints anew, into another folder",
            tensor=tensor.name,
        )
    return values.to(device).to(torch.float64)
