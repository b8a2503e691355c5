"""A batch of steps, and what it does with each batch of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.absorb.elementwise import ElementwiseTensor
from hubmerge.executor.absorb.statistics import AveragedTensor
from hubmerge.executor.absorb.step_input import Merge, StepInput, TensorStep
from hubmerge.executor.absorb.whole_tensor import WholeTensor, absorb_together, decompose
from hubmerge.executor.parallel.batching import TensorBatch
from hubmerge.executor.parallel.context import ExecutorContext
from hubmerge.executor.parallel.device import use_own_stream
from hubmerge.executor.parts import AVERAGE, part_key, state_parts
from hubmerge.executor.reading import read_task_vector
from hubmerge.executor.state import State
from hubmerge.executor.state_writer import AnyStateWriter
from hubmerge.executor.stats.similarity import Sketches
from hubmerge.methods import Method


@dataclass(frozen=True)
class StepBatch:
    """A batch of steps that go through each tensor together; the value that travels through the stages of a merge.

    Attributes:
        merge: base model, method and plan.
        inputs: one for each step.
        methods: the method in the variant and state of preparation that each step needs.
        previous: the state before the first step; None if that is step 1.
        sketches: whether sketches of the task vectors are made.
        context: device, threads and processes.
        older_steps: last step that version 0.1.0 merged, see `Sketches`.
    """

    merge: Merge
    inputs: Sequence[StepInput]
    methods: Sequence[Method]
    previous: State | None
    sketches: bool
    context: ExecutorContext
    older_steps: int = 0

    @property
    def steps(self) -> range:
        """Numbers of the steps."""
        first = 1 if self.previous is None else self.previous.step + 1
        return range(first, first + len(self.inputs))

    def sketches_before(self) -> Sketches:
        """Return the sketches of the state before the first step; none if no sketches are made."""
        return Sketches.of(self.previous if self.sketches else None, self.older_steps)

    def with_methods(self, methods: Sequence[Method]) -> StepBatch:
        """Return the batch with other methods."""
        return replace(self, methods=methods)

    def accumulated_before(self, tensor: PlannedTensor) -> torch.Tensor:
        """Return the accumulated delta of one tensor before the first step."""
        device = self.context.device
        if self.previous is None:
            return torch.zeros((), dtype=torch.float64, device=device).expand(tensor.shape)
        return self.previous.read(tensor.name).to(device)

    def task_vector(self, tensor: PlannedTensor, step_input: StepInput) -> tuple[torch.Tensor, float]:
        """Return the task vector of one tensor, and its norm."""
        return read_task_vector(self.merge.base, step_input.checkpoint, tensor.name, context=self.context)

    def absorb(self, batch: TensorBatch, writer: AnyStateWriter) -> list[list[TensorStep]]:
        """Do all steps on a batch of tensors, write the result, and return the steps of each tensor."""
        device = self.context.device
        if any(tensor.action == AVERAGE for tensor in batch.tensors):  # a batch of its own
            return [self._average(tensor, writer) for tensor in batch.tensors]
        if not writer.in_memory:
            # What is written leaves the device first; what stays in memory may be read from any stream.
            use_own_stream(device)
        if device.type == "cpu" and all(method.elementwise for method in self.methods):
            return [self._absorb_pieces(tensor, writer) for tensor in batch.tensors]
        tensors = [self._whole(tensor) for tensor in batch.tensors]
        together = self.context.together or len(tensors) > 1
        for step, step_input, method in zip(self.steps, self.inputs, self.methods, strict=True):
            if together and method.multiplies_together:
                absorb_together(tensors, step_input, method, partial(self.task_vector, step_input=step_input), step)
                continue
            found: list[Sequence[Any]] = [() for _ in tensors]
            if together and step > 1:
                found = decompose(tensors, step_input, method)
            for one in tensors:
                read = partial(self.task_vector, one.tensor, step_input)
                # Each decomposition is released once it is used.
                one.absorb(step_input, method, read, found.pop(0), step=step)
        for one in tensors:
            writer.write(one.tensor.name, one.accumulated)
            _write_parts(writer, one.tensor, one.parts)
        return [one.steps for one in tensors]

    def _average(self, tensor: PlannedTensor, writer: AnyStateWriter) -> list[TensorStep]:
        dtype = self.context.input_dtype
        one = AveragedTensor(self.merge, self.previous, tensor, input_dtype=dtype, sketches=self.sketches)
        return one.absorb(self.inputs, self.methods, writer)

    def _absorb_pieces(self, tensor: PlannedTensor, writer: AnyStateWriter) -> list[TensorStep]:
        parts = self._parts_before(tensor)
        dtype = self.context.input_dtype
        one = ElementwiseTensor(self.merge, self.previous, tensor, parts, input_dtype=dtype, sketches=self.sketches)
        steps = one.absorb(self.inputs, self.methods, self.steps, writer)
        _write_parts(writer, tensor, one.parts)
        return steps

    def _whole(self, tensor: PlannedTensor) -> WholeTensor:
        norm = None if self.previous is None else self.previous.manifest.tensors[tensor.name].accumulated_norm
        parts = self._parts_before(tensor)
        before, dtype = self.accumulated_before(tensor), self.merge.state_dtype
        return WholeTensor(tensor, before, norm, parts, sketches=self.sketches, state_dtype=dtype)

    def _parts_before(self, tensor: PlannedTensor) -> Mapping[str, torch.Tensor]:
        shapes = state_parts(self.methods[0], tensor)
        return {name: self._part_before(tensor, name, shape) for name, shape in shapes.items()}

    def _part_before(self, tensor: PlannedTensor, part: str, shape: tuple[int, ...]) -> torch.Tensor:
        device = self.context.device
        values = None if self.previous is None else self.previous.read_part(part_key(part, tensor.name))
        if values is None:
            return torch.zeros(shape, dtype=torch.float64, device=device)
        return values.to(device).to(torch.float64)


def _write_parts(writer: AnyStateWriter, tensor: PlannedTensor, parts: Mapping[str, torch.Tensor]) -> None:
    for part, values in parts.items():
        writer.write_part(part_key(part, tensor.name), values)
