"""First pass of a step: absorb the checkpoint's task vector into the accumulated delta, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor
from hubmerge.errors import CheckpointError, HubmergeError
from hubmerge.executor.figures import StepFigures, TensorFigures, overall_cosine, overall_share
from hubmerge.executor.reading import all_finite, read_task_vector
from hubmerge.executor.scheduling import OnTensor, as_done, for_each_tensor
from hubmerge.linalg import cosine, frobenius_norm, total_norm
from hubmerge.methods import Absorbed, Method, Norms, SurveyingMethod
from hubmerge.methods.base import Result
from hubmerge.state import MergeState, StateWriter

CPU = torch.device("cpu")


def merge_step(
    base: Checkpoint,
    checkpoint: Checkpoint,
    previous: MergeState | None,
    method: Method,
    parameters_for: Callable[[str], BaseModel],
    plan: MergePlan,
    folder: Path,
    *,
    chain: str = "",
    input_dtype: torch.dtype | None = None,
    device: torch.device = CPU,
    workers: int | None = None,
    on_tensor: OnTensor | None = None,
) -> tuple[MergeState, StepFigures]:
    """Absorb `checkpoint`, seen under the base model's names, and save the state after it in `folder`.

    `previous` is the state of the step before, None at step 1. `parameters_for` gives the method's parameters for
    a tensor; what concerns the whole model is taken from those of the first merged tensor. `chain` is kept in
    the state. `input_dtype` is what all values are rounded to before the arithmetic, which is float64.

    The bytes of the state depend neither on `workers` nor on whether a run was interrupted between steps. Memory
    is bounded by a few float64 copies of the tensors worked on at one time (see `for_each_tensor`).

    Raises CheckpointError if a value is not finite, naming checkpoint and tensor, or if `previous` belongs to
    another merge; MachineError if the state cannot be written.
    """
    step = 1 if previous is None else previous.step + 1
    shapes = {tensor.name: tensor.shape for tensor in plan.merged}
    if previous is not None:
        _check_previous(previous, method, shapes)
    work = _Step(base, checkpoint, previous, input_dtype, device)
    general = parameters_for(plan.merged[0].name)
    if isinstance(method, SurveyingMethod):
        method = method.surveyed(work.sweep(plan, workers), general, step=step)
    with StateWriter(folder, shapes) as writer:
        tensors = for_each_tensor(
            plan.merged,
            lambda tensor: work.absorb(tensor, method, parameters_for(tensor.name), step, writer),
            workers=workers,
            on_tensor=on_tensor,
        )
        before = () if previous is None else previous.manifest.task_vector_norms
        norms = Norms(
            total_norm(tensor.accumulated_norm for tensor in tensors),
            (*before, total_norm(tensor.task_vector_norm for tensor in tensors)),
        )
        scale = method.scale(norms, general)
        state = writer.finish(
            method=method.name,
            step=step,
            chain=chain,
            norms=norms,
            scale=scale,
            tensor_norms={tensor.name: (tensor.accumulated_norm, tensor.task_vector_norm) for tensor in tensors},
        )
    return state, _figures(tensors, state, previous, checkpoint.label)


@dataclass(frozen=True)
class _Step:
    """What all tensors of one step have in common."""

    base: Checkpoint
    checkpoint: Checkpoint
    previous: MergeState | None
    input_dtype: torch.dtype | None
    device: torch.device

    def read(self, tensor: PlannedTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulated delta before the step and task vector of one tensor."""
        task_vector = read_task_vector(
            self.base, self.checkpoint, tensor.name, input_dtype=self.input_dtype, device=self.device
        )
        if self.previous is None:
            return torch.zeros((), dtype=torch.float64, device=self.device).expand(tensor.shape), task_vector
        return self.previous.read(tensor.name).to(self.device), task_vector

    def sweep(self, plan: MergePlan, workers: int | None) -> _Sweep:
        """Way to look at all merged tensors, for a method that has to."""
        return _Sweep(self, plan, workers)

    def absorb(
        self, tensor: PlannedTensor, method: Method, parameters: BaseModel, step: int, writer: StateWriter
    ) -> TensorFigures:
        """Absorb one tensor and write what became of it."""
        accumulated, task_vector = self.read(tensor)
        similarity = None if self.previous is None else cosine(accumulated, task_vector)
        absorbed = self._absorbed(tensor, method, parameters, step, accumulated, task_vector)
        length = frobenius_norm(task_vector)
        del accumulated, task_vector
        if not all_finite(absorbed.accumulated):
            raise CheckpointError(
                f"{self.checkpoint.label}: tensor {tensor.name!r} grows beyond what float64 holds in step {step}",
                hint="do not merge this checkpoint; its values are out of all proportion",
            )
        writer.write(tensor.name, absorbed.accumulated)
        return TensorFigures(
            name=tensor.name,
            action=tensor.action,
            rank=absorbed.rank,
            directions=None if absorbed.rank is None else min(tensor.shape),
            removed_share=absorbed.removed_share,
            cosine=similarity,
            task_vector_norm=length,
            accumulated_norm=frobenius_norm(absorbed.accumulated),
        )

    def _absorbed(
        self,
        tensor: PlannedTensor,
        method: Method,
        parameters: BaseModel,
        step: int,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
    ) -> Absorbed:
        if tensor.action != "merge-matrix":
            return Absorbed(method.absorb_other(accumulated, task_vector, parameters, step=step))
        try:
            return method.absorb(accumulated, task_vector, parameters, step=step)
        except LinAlgError as error:
            raise HubmergeError(
                f"{self.checkpoint.label}: tensor {tensor.name!r}: {error}",
                hint="try another device; if it stays, please report it with the checkpoint's name",
            ) from error


@dataclass(frozen=True)
class _Sweep:
    """Implements `hubmerge.methods.Sweep` over the merged tensors of a plan."""

    step: _Step
    plan: MergePlan
    workers: int | None

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        done = as_done(self.plan.merged, lambda tensor: look(*self.step.read(tensor)), workers=self.workers)
        return (result for _, result in done)


def _check_previous(previous: MergeState, method: Method, shapes: Mapping[str, tuple[int, ...]]) -> None:
    different = previous.first_difference(shapes)
    if different is not None or previous.manifest.method != method.name:
        what = (
            f"was merged by {previous.manifest.method}, not by {method.name}"
            if different is None
            else f"does not have the tensors to be merged, {different!r} for one"
        )
        raise CheckpointError(
            f"{previous.folder}: the state of step {previous.step} {what}",
            hint="it belongs to another merge: use another folder, or remove it and run again",
        )


def _figures(tensors: list[TensorFigures], state: MergeState, previous: MergeState | None, label: str) -> StepFigures:
    before = [
        0.0 if previous is None else previous.manifest.tensors[tensor.name].accumulated_norm for tensor in tensors
    ]
    manifest = state.manifest
    return StepFigures(
        step=state.step,
        checkpoint=label,
        method=manifest.method,
        task_vector_norm=manifest.task_vector_norms[-1],
        accumulated_norm=manifest.accumulated_norm,
        scale=manifest.scale,
        cosine=overall_cosine(tensors, before),
        removed_share=overall_share(tensors),
        tensors=tuple(tensors),
    )
