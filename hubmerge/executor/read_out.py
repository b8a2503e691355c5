"""The merged delta of a state: the accumulated delta over the scale, or what the method reads out of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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

    @property
    def reads_together(self) -> bool:
        """True if `deltas` is faster than `delta` on an accelerator."""
        return self.method.reads_state and self.method.multiplies_together

    def delta(self, state: State, tensor: PlannedTensor, device: torch.device = CPU) -> torch.Tensor:
        """Return the merged delta of one tensor, float64, on the CPU.

        Raises:
            CheckpointError: a decomposition failed.
        """
        if not self.method.reads_state:
            accumulated = state.read(tensor.name).to(device)
            return (accumulated / self.method.scale(state.manifest.norms, self.parameters_for(self.whole))).cpu()
        if tensor.action != "merge-matrix":
            return self.method.read(self._input(state, tensor, device)).cpu()
        try:
            return self._stored(tensor, map(self.method.read_matrix, self._matrices(state, tensor, device)))
        except LinAlgError as error:
            raise self._unsolved(state, tensor, error) from error

    def deltas(
        self, state: State, tensors: Sequence[PlannedTensor], device: torch.device = CPU
    ) -> Mapping[str, torch.Tensor]:
        """Return the merged delta of each weight matrix of a batch, by name, float64, on the CPU.

        Raises:
            CheckpointError: a decomposition failed.
        """
        if self.reads_together:
            with suppress(LinAlgError):  # one by one, the error names its tensor
                inputs = [list(self._matrices(state, tensor, device)) for tensor in tensors]
                found = iter(self.method.read_matrices([matrix for own in inputs for matrix in own]))
                return {
                    tensor.name: self._stored(tensor, [next(found) for _ in own])
                    for tensor, own in zip(tensors, inputs, strict=True)
                }
        return {tensor.name: self.delta(state, tensor, device) for tensor in tensors}

    def _unsolved(self, state: State, tensor: PlannedTensor, error: Exception) -> CheckpointError:
        """Return the error about a matrix whose equations or directions could not be found."""
        name = self.method.name
        larger = f"give {name} a larger `ridge`, or " if "ridge" in self.method.Parameters.model_fields else ""
        return CheckpointError(
            f"{name} cannot be read out of the state of step {state.step}: tensor {tensor.name!r}: {error}",
            hint=f"{larger}choose another method",
            tensor=tensor.name,
        )

    def _input(self, state: State, tensor: PlannedTensor, device: torch.device) -> ReadInput[Any]:
        """Return what the method reads of one tensor, as it is stored."""
        accumulated = state.read(tensor.name).to(device)
        parts = {name: _part(state, name, tensor, device) for name in state_parts(self.method, tensor)}
        return ReadInput(accumulated, parts, self.parameters_for(tensor.name), state.manifest.norms)

    def _matrices(self, state: State, tensor: PlannedTensor, device: torch.device) -> Iterator[ReadInput[Any]]:
        """Yield the weight matrix of a tensor as the method needs it, or one per expert."""
        whole, turned = self._input(state, tensor, device), is_turned(self.method, tensor)
        if self._is_whole(tensor):
            yield replace(whole, accumulated=whole.accumulated.T) if turned else whole
            return
        for number, matrix in enumerate(whole.accumulated):
            parts = {name: values[number] for name, values in whole.parts.items()}
            yield replace(whole, accumulated=matrix.T if turned else matrix, parts=parts)

    def _stored(self, tensor: PlannedTensor, merged: Iterable[torch.Tensor]) -> torch.Tensor:
        """Return the merged deltas of the matrices of a tensor as one, as it is stored, on the CPU."""
        found = ((one.T if is_turned(self.method, tensor) else one).cpu() for one in merged)
        if self._is_whole(tensor):
            return next(found)
        result = torch.empty(tensor.shape, dtype=torch.float64)
        for number, one in enumerate(found):
            result[number] = one
        return result

    def _is_whole(self, tensor: PlannedTensor) -> bool:
        """Return True if the method reads a tensor as one matrix."""
        return len(tensor.shape) == 2 or not self.method.has_matrix_form


def delta_pieces(
    state: State, tensor: PlannedTensor, read_out: ReadOut | None = None, device: torch.device = CPU
) -> Iterator[torch.Tensor]:
    """Yield the merged delta of one tensor, float64, flat, in pieces of ELEMENTS_AT_ONCE that the caller may change."""
    if read_out is None:
        for piece in state.read_pieces(tensor.name, ELEMENTS_AT_ONCE):
            piece /= state.scale
            yield piece
        return
    yield from pieces_of(read_out.delta(state, tensor, device))


def pieces_of(delta: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield the values of a tensor, flat, in pieces of ELEMENTS_AT_ONCE."""
    yield from delta.contiguous().view(-1).split(ELEMENTS_AT_ONCE)


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
