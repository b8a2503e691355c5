"""What happens to some tensors: the task vectors of some steps, one after another, into their accumulated deltas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.executor.absorb.elementwise import ElementwiseTensor
from hubmerge.executor.absorb.step_input import StepInput, TensorStep, part_key
from hubmerge.executor.absorb.whole_tensor import WholeTensor, decompose
from hubmerge.executor.in_memory import InMemoryStateWriter
from hubmerge.executor.parallel.batching import Batch
from hubmerge.executor.parallel.device import use_own_stream
from hubmerge.executor.reading import read_task_vector
from hubmerge.executor.state import MergeState, StateWriter
from hubmerge.methods import Method


@dataclass(frozen=True)
class StepContext:
    """What all tensors have in common: what comes in, and the state `previous` that it comes to."""

    base: Checkpoint
    incoming: Sequence[StepInput]
    previous: MergeState | None
    input_dtype: torch.dtype | None
    device: torch.device
    sketches: bool

    @property
    def first(self) -> int:
        """The number of the first step."""
        return 1 if self.previous is None else self.previous.step + 1

    def accumulated_before(self, tensor: PlannedTensor) -> torch.Tensor:
        """Accumulated delta of one tensor before the first step."""
        if self.previous is None:
            return torch.zeros((), dtype=torch.float64, device=self.device).expand(tensor.shape)
        return self.previous.read(tensor.name).to(self.device)

    def task_vector(self, tensor: PlannedTensor, incoming: StepInput) -> tuple[torch.Tensor, float]:
        """Task vector of one tensor, and its length."""
        return read_task_vector(
            self.base, incoming.checkpoint, tensor.name, input_dtype=self.input_dtype, device=self.device
        )

    def absorb(
        self, batch: Batch, methods: Sequence[Method], writer: StateWriter | InMemoryStateWriter
    ) -> list[list[TensorStep]]:
        """Absorb some tensors of all that comes in, and write what became of them; what each step of each has to tell.

        `methods` are those of the steps: one method, in the form that each step asks for.
        """
        if isinstance(writer, StateWriter):
            # What is written has left the device by then; what stays in memory may be read from any stream.
            use_own_stream(self.device)
        if self.device.type == "cpu" and all(one.elementwise for one in methods):
            return [self._absorb_pieces(tensor, methods, writer) for tensor in batch.tensors]
        folds = [self._fold(tensor, methods[0]) for tensor in batch.tensors]
        together = self.device.type != "cpu" or len(folds) > 1
        for step, (incoming, method) in enumerate(zip(self.incoming, methods, strict=True), start=self.first):
            known: list[Sequence[Any]] = [() for _ in folds]
            if together and step > 1:
                known = decompose(folds, incoming, method)
            for fold in folds:
                read = partial(self.task_vector, fold.tensor, incoming)
                fold.absorb(incoming, method, read, known.pop(0), step=step)
        for fold in folds:
            writer.write(fold.tensor.name, fold.accumulated)
            _write_parts(writer, fold.tensor, fold.parts)
        return [fold.told for fold in folds]

    def _absorb_pieces(
        self, tensor: PlannedTensor, methods: Sequence[Method], writer: StateWriter | InMemoryStateWriter
    ) -> list[TensorStep]:
        parts = self._parts_before(tensor, methods[0])
        fold = ElementwiseTensor(
            self.base, self.previous, tensor, parts, input_dtype=self.input_dtype, sketches=self.sketches
        )
        told = fold.absorb(self.incoming, methods, writer)
        _write_parts(writer, tensor, fold.parts)
        return told

    def _fold(self, tensor: PlannedTensor, method: Method) -> WholeTensor:
        length = None if self.previous is None else self.previous.manifest.tensors[tensor.name].accumulated_norm
        parts = self._parts_before(tensor, method)
        return WholeTensor(tensor, self.accumulated_before(tensor), length, parts, sketches=self.sketches)

    def _parts_before(self, tensor: PlannedTensor, method: Method) -> Mapping[str, torch.Tensor]:
        return {
            name: self._part_before(tensor, name, shape) for name, shape in method.state_parts(tensor.shape).items()
        }

    def _part_before(self, tensor: PlannedTensor, part: str, shape: tuple[int, ...]) -> torch.Tensor:
        values = None if self.previous is None else self.previous.read_part(part_key(part, tensor.name))
        return torch.zeros(shape, dtype=torch.float64, device=self.device) if values is None else values.to(self.device)


def _write_parts(
    writer: StateWriter | InMemoryStateWriter, tensor: PlannedTensor, parts: Mapping[str, torch.Tensor]
) -> None:
    for part, values in parts.items():
        writer.write_part(part_key(part, tensor.name), values)
