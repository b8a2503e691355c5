"""What happens to one tensor: the task vectors of some steps, one after another, into its accumulated delta."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import HubmergeError
from hubmerge.executor.experts import AbsorbedExperts, absorb_experts
from hubmerge.executor.figures import TensorFigures
from hubmerge.executor.holding import HeldStateWriter
from hubmerge.executor.incoming import Incoming, TensorStep, grows_beyond, part_key, sketch_row
from hubmerge.executor.piecewise import PiecewiseFold
from hubmerge.executor.reading import all_finite, read_task_vector
from hubmerge.linalg import cosine, frobenius_norm, sketch
from hubmerge.methods import Absorbed, ElementwiseMethod, Method, PartedMethod
from hubmerge.state import MergeState, StateWriter


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

    def task_vector(self, tensor: PlannedTensor, incoming: Incoming) -> tuple[torch.Tensor, float]:
        """Task vector of one tensor, and its length."""
        return read_task_vector(
            self.base, incoming.checkpoint, tensor.name, input_dtype=self.input_dtype, device=self.device
        )

    def absorb(
        self, tensor: PlannedTensor, methods: Sequence[Method], writer: StateWriter | HeldStateWriter
    ) -> list[TensorStep]:
        """Absorb one tensor of all that comes in, and write what became of it; what each step has to tell.

        `methods` are those of the steps: one method, in the form that each step asks for.
        """
        parts = self._parts_before(tensor, methods[0])
        if self.device.type == "cpu" and all(isinstance(one, ElementwiseMethod) for one in methods):
            fold = PiecewiseFold(
                self.base, self.previous, tensor, parts, input_dtype=self.input_dtype, sketches=self.sketches
            )
            told = fold.absorb(self.incoming, methods, writer)
            parts = fold.parts
        else:
            accumulated, parts, told = self._absorb_whole(tensor, methods, parts)
            writer.write(tensor.name, accumulated)
        for part, values in parts.items():
            writer.write_part(part_key(part, tensor.name), values)
        return told

    def _absorb_whole(
        self, tensor: PlannedTensor, methods: Sequence[Method], parts: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], list[TensorStep]]:
        accumulated = self.accumulated_before(tensor)
        before = None if self.previous is None else self.previous.manifest.tensors[tensor.name].accumulated_norm
        told = []
        for step, (incoming, method) in enumerate(zip(self.incoming, methods, strict=True), start=self.first):
            task_vector, length = self.task_vector(tensor, incoming)
            similarity = None if before is None else cosine(accumulated, task_vector, (before, length))
            row = sketch_row(length, sketch(tensor.name, task_vector)) if self.sketches else torch.empty(0)
            absorbed, parts = _absorbed(tensor, method, incoming, step, accumulated, parts, task_vector)
            del task_vector
            before = frobenius_norm(absorbed.accumulated)
            if not math.isfinite(before) and not all_finite(absorbed.accumulated):
                raise grows_beyond(incoming, tensor, step)
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
            raise grows_beyond(self.incoming[-1], tensor, self.first + len(self.incoming) - 1)
        return accumulated, parts, told

    def _parts_before(self, tensor: PlannedTensor, method: Method) -> Mapping[str, torch.Tensor]:
        if not isinstance(method, PartedMethod):
            return {}
        return {name: self._part_before(tensor, name, shape) for name, shape in method.parts(tensor.shape).items()}

    def _part_before(self, tensor: PlannedTensor, part: str, shape: tuple[int, ...]) -> torch.Tensor:
        values = None if self.previous is None else self.previous.read_part(part_key(part, tensor.name))
        return torch.zeros(shape, dtype=torch.float64, device=self.device) if values is None else values.to(self.device)


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
