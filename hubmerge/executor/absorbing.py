"""What happens to one tensor: the task vectors of some steps, one after another, into its accumulated delta."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import BaseModel
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import CheckpointError, HubmergeError
from hubmerge.executor.experts import AbsorbedExperts, absorb_experts
from hubmerge.executor.figures import TensorFigures
from hubmerge.executor.holding import HeldStateWriter
from hubmerge.executor.reading import (
    ELEMENTS_AT_ONCE,
    all_finite,
    held_pieces,
    not_finite,
    read_task_vector,
    rounded_pieces,
    task_vector_pieces,
)
from hubmerge.linalg import Sketcher, cosine, cosine_of_parts, frobenius_norm, sketch, total_norm
from hubmerge.methods import Absorbed, ElementwiseMethod, Method, PartedMethod, PartedTensor
from hubmerge.state import MergeState, StateWriter


@dataclass(frozen=True)
class Incoming:
    """What one step absorbs: a checkpoint under the base model's names, and the method's parameters for a tensor."""

    checkpoint: Checkpoint
    parameters_for: Callable[[str], BaseModel]


@dataclass(frozen=True)
class TensorStep:
    """What became of one tensor in one step: its figures, and its length and sketch in one row (empty without)."""

    figures: TensorFigures
    sketch: torch.Tensor


@dataclass(frozen=True)
class Absorption:
    """What all tensors have in common: what comes in, and the state `previous` that it comes to."""

    base: Checkpoint
    incoming: Sequence[Incoming]
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

    def task_vector(self, tensor: PlannedTensor, incoming: Incoming) -> torch.Tensor:
        """Task vector of one tensor."""
        return read_task_vector(
            self.base, incoming.checkpoint, tensor.name, input_dtype=self.input_dtype, device=self.device
        )

    def absorb(
        self, tensor: PlannedTensor, methods: Sequence[Method], writer: StateWriter | HeldStateWriter
    ) -> list[TensorStep]:
        """Absorb one tensor of all that comes in, and write what became of it; what each step has to tell.

        `methods` are those of the steps: one method, in the form that each step asks for.
        """
        in_pieces = self.device.type == "cpu" and all(isinstance(one, ElementwiseMethod) for one in methods)
        absorb = self._absorb_in_pieces if in_pieces else self._absorb_whole
        accumulated, parts, told = absorb(tensor, methods)
        writer.write(tensor.name, accumulated)
        for part, values in parts.items():
            writer.write_part(part_key(part, tensor.name), values)
        return told

    def _absorb_whole(
        self, tensor: PlannedTensor, methods: Sequence[Method]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], list[TensorStep]]:
        accumulated = self.accumulated_before(tensor)
        parts = self._parts_before(tensor, methods[0])
        before = None if self.previous is None else self.previous.manifest.tensors[tensor.name].accumulated_norm
        told = []
        for step, (incoming, method) in enumerate(zip(self.incoming, methods, strict=True), start=self.first):
            task_vector = self.task_vector(tensor, incoming)
            length = frobenius_norm(task_vector)
            similarity = None if before is None else cosine(accumulated, task_vector, (before, length))
            row = _row(length, sketch(tensor.name, task_vector)) if self.sketches else torch.empty(0)
            absorbed, parts = _absorbed(tensor, method, incoming, step, accumulated, parts, task_vector)
            del task_vector
            if not all_finite(absorbed.accumulated):
                raise _beyond(incoming, tensor, step)
            before = frobenius_norm(absorbed.accumulated)
            expert_ranks = absorbed.ranks if isinstance(absorbed, AbsorbedExperts) else ()
            figures = TensorFigures(
                name=tensor.name,
                action=tensor.action,
                rank=absorbed.rank,
                expert_ranks=expert_ranks,
                directions=min(tensor.shape[-2:]) if absorbed.rank is not None or expert_ranks else None,
                removed_share=absorbed.removed_share,
                cosine=similarity,
                task_vector_norm=length,
                accumulated_norm=before,
                error=absorbed.error,
            )
            told.append(TensorStep(figures, row))
            # As it would come out of a file: products of other layouts differ in the last digit.
            accumulated = absorbed.accumulated.contiguous()
        if not all(all_finite(values) for values in parts.values()):
            raise _beyond(self.incoming[-1], tensor, self.first + len(self.incoming) - 1)
        return accumulated, parts, told

    def _absorb_in_pieces(
        self, tensor: PlannedTensor, methods: Sequence[Method]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], list[TensorStep]]:
        """The same of a method that needs no more than a piece at a time: all that it does stays in the cache."""
        if self.previous is None:
            accumulated = torch.zeros(tensor.shape, dtype=torch.float64)
        else:
            accumulated = self.previous.read(tensor.name)
        parts = self._parts_before(tensor, methods[0])
        pieces = accumulated.view(-1).split(ELEMENTS_AT_ONCE)
        before = None if self.previous is None else [frobenius_norm(piece) for piece in pieces]
        held = held_pieces(self.base, tensor.name, self.input_dtype) if len(self.incoming) > 1 else ()
        told = []
        for step, (incoming, method) in enumerate(zip(self.incoming, methods, strict=True), start=self.first):
            start = held or rounded_pieces(self.base, tensor.name, self.input_dtype)
            task_vector = task_vector_pieces(start, incoming.checkpoint, tensor.name, input_dtype=self.input_dtype)
            sketcher = Sketcher(tensor.name, tensor.elements, self.device)
            lengths, after, cosines = [], [], []
            absorb, changed = _absorber(method, incoming.parameters_for(tensor.name), step), parts
            for index, (piece, change) in enumerate(zip(pieces, task_vector, strict=True)):
                lengths.append(frobenius_norm(change))
                if not math.isfinite(lengths[-1]) and not all_finite(change):
                    raise not_finite(self.base, incoming.checkpoint, tensor.name, self.input_dtype)
                if before is not None:
                    cosines.append(cosine(piece, change, (before[index], lengths[-1])))
                if self.sketches:
                    sketcher.add(change)
                absorbed = absorb(piece, parts, change)
                after.append(frobenius_norm(absorbed.accumulated))
                if not math.isfinite(after[-1]) and not all_finite(absorbed.accumulated):
                    raise _beyond(incoming, tensor, step)
                piece.copy_(absorbed.accumulated)
                changed = absorbed.parts
            parts = changed
            length = total_norm(lengths)
            figures = TensorFigures(
                name=tensor.name,
                action=tensor.action,
                rank=None,
                directions=None,
                removed_share=0.0,
                cosine=None if before is None else cosine_of_parts(cosines, lengths, before),
                task_vector_norm=length,
                accumulated_norm=total_norm(after),
            )
            row = _row(length, sketcher.sketch()) if self.sketches else torch.empty(0)
            told.append(TensorStep(figures, row))
            before = after
        return accumulated, parts, told

    def _parts_before(self, tensor: PlannedTensor, method: Method) -> Mapping[str, torch.Tensor]:
        if not isinstance(method, PartedMethod):
            return {}
        return {name: self._part_before(tensor, name, shape) for name, shape in method.parts(tensor.shape).items()}

    def _part_before(self, tensor: PlannedTensor, part: str, shape: tuple[int, ...]) -> torch.Tensor:
        values = None if self.previous is None else self.previous.read_part(part_key(part, tensor.name))
        return torch.zeros(shape, dtype=torch.float64, device=self.device) if values is None else values.to(self.device)


def part_key(part: str, name: str) -> str:
    """What a method's part for a tensor is called in the state."""
    return f"{part}/{name}"


def _row(length: float, sketched: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.tensor([length], dtype=torch.float32), sketched])


def _beyond(incoming: Incoming, tensor: PlannedTensor, step: int) -> CheckpointError:
    return CheckpointError(
        f"{incoming.checkpoint.label}: tensor {tensor.name!r} grows beyond what float64 holds in step {step}",
        hint="do not merge this checkpoint; its values are out of all proportion",
    )


def _absorber(
    method: Method, parameters: BaseModel, step: int
) -> Callable[[torch.Tensor, Mapping[str, torch.Tensor], torch.Tensor], PartedTensor]:
    """What is done with every piece in one step, a function of accumulated delta, parts and task vector."""
    if isinstance(method, PartedMethod):
        return partial(method.absorb_parts, parameters=parameters, step=step)

    def absorb(accumulated: torch.Tensor, parts: Mapping[str, torch.Tensor], task_vector: torch.Tensor) -> PartedTensor:
        return PartedTensor(method.absorb_other(accumulated, task_vector, parameters, step=step), parts)

    return absorb


def _absorbed(
    tensor: PlannedTensor,
    method: Method,
    incoming: Incoming,
    step: int,
    accumulated: torch.Tensor,
    parts: Mapping[str, torch.Tensor],
    task_vector: torch.Tensor,
) -> tuple[Absorbed, Mapping[str, torch.Tensor]]:
    parameters = incoming.parameters_for(tensor.name)
    if isinstance(method, PartedMethod):
        parted = method.absorb_parts(accumulated, parts, task_vector, parameters, step=step)
        return Absorbed(parted.accumulated), parted.parts
    if tensor.action != "merge-matrix":
        return Absorbed(method.absorb_other(accumulated, task_vector, parameters, step=step)), {}

    def absorb(accumulated: torch.Tensor, task_vector: torch.Tensor) -> Absorbed:
        return method.absorb(accumulated, task_vector, parameters, step=step)

    try:
        if len(tensor.shape) == 3:
            return absorb_experts(absorb, accumulated, task_vector), {}
        return absorb(accumulated, task_vector), {}
    except LinAlgError as error:
        raise HubmergeError(
            f"{incoming.checkpoint.label}: tensor {tensor.name!r}: {error}",
            hint="try another device; if it stays, please report it with the checkpoint's name",
        ) from error
