"""First pass of a step: absorb the checkpoint's task vector into the accumulated delta, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor, TensorSpec
from hubmerge.errors import CheckpointError, HubmergeError
from hubmerge.executor.experts import AbsorbedExperts, absorb_experts
from hubmerge.executor.figures import Similarity, StepFigures, TensorFigures, overall_cosine, overall_share
from hubmerge.executor.holding import HeldStateWriter
from hubmerge.executor.processes import ALONE, Processes, do_share, gather, in_order, meet, stop_file, tell_of_others
from hubmerge.executor.reading import all_finite, read_task_vector
from hubmerge.executor.scheduling import OnTensor, as_done
from hubmerge.executor.similarity import SKETCH_PREFIX, compare_sketches, earlier_sketches, sketch_key, sketch_specs
from hubmerge.linalg import cosine, frobenius_norm, sketch, total_norm
from hubmerge.methods import Absorbed, ChoosingMethod, Method, Norms, PartedMethod, SurveyingMethod
from hubmerge.methods.base import Result
from hubmerge.state import MergeState, StateWriter, load_state

CPU = torch.device("cpu")
TOLD_AT_ONCE = 8
"""Of so many tensors each process tells the others at one time what a sweep found."""


def merge_step(
    base: Checkpoint,
    checkpoint: Checkpoint,
    previous: MergeState | None,
    method: Method,
    parameters_for: Callable[[str], BaseModel],
    plan: MergePlan,
    folder: Path | None,
    *,
    chain: str = "",
    input_dtype: torch.dtype | None = None,
    sketches: bool = True,
    device: torch.device = CPU,
    workers: int | None = None,
    on_tensor: OnTensor | None = None,
    processes: Processes = ALONE,
) -> tuple[MergeState, StepFigures]:
    """Absorb `checkpoint`, seen under the base model's names, and save the state after it in `folder`.

    Without a folder the state stays in memory, the same in every digit.

    `previous` is the state of the step before, None at step 1. `parameters_for` gives the method's parameters for
    a tensor; what concerns the whole model is taken from those of the first merged tensor. `chain` is kept in
    the state. `input_dtype` is what all values are rounded to before the arithmetic, which is float64. `sketches`
    of the task vectors are kept in the state, so that a later one can be compared with all earlier ones.

    All of `processes` call this with the same arguments and do a share of the tensors each; the folder has to be on
    a file system that they share.

    The bytes of the state depend neither on `workers`, nor on `processes`, nor on whether a run was interrupted
    between steps. Memory of each process is bounded by a few float64 copies of the tensors worked on at one time
    (see `for_each_tensor`).

    Raises CheckpointError if a value is not finite, naming checkpoint and tensor, or if `previous` belongs to
    another merge; MachineError if the state cannot be written.
    """
    step = 1 if previous is None else previous.step + 1
    shapes = {tensor.name: tensor.shape for tensor in plan.merged}
    if previous is not None:
        _check_previous(previous, method, shapes)
    general = parameters_for(plan.merged[0].name)
    if isinstance(method, ChoosingMethod):
        method = method.chosen(general)
    parts = _parts(plan, method)
    if previous is not None:
        _check_parts(previous, parts)
    work = _Step(base, checkpoint, previous, input_dtype, device, sketches)
    stop = Path() if folder is None else stop_file(folder, processes)
    if isinstance(method, SurveyingMethod):
        method = method.surveyed(_Sweep(work, plan, workers, processes, stop), general, step=step)
    earlier = earlier_sketches(previous) if sketches else {}
    specs = [*parts, *(sketch_specs([*earlier, step], len(shapes)) if sketches else ())]
    with _state_writer(folder, shapes, specs, processes) as writer:
        done = do_share(
            plan.merged,
            lambda tensor: work.absorb(tensor, method, parameters_for(tensor.name), step, writer),
            processes=processes,
            cost=lambda tensor: tensor.flops,
            stop=stop,
            workers=workers,
            on_tensor=on_tensor,
        )
        results = _of_all(done, writer, processes)
        tell_of_others(plan.merged, done, on_tensor)
        tensors = [figures for figures, _ in results]
        sketched = {step: torch.stack([row for _, row in results])} if sketches else {}
        before = () if previous is None else previous.manifest.task_vector_norms
        norms = Norms(
            total_norm(tensor.accumulated_norm for tensor in tensors),
            (*before, total_norm(tensor.task_vector_norm for tensor in tensors)),
        )
        if folder is not None and processes.rank > 0:
            meet(processes)
            state = load_state(folder)
        else:
            for number, rows in {**earlier, **sketched}.items():
                writer.write_part(sketch_key(number), rows)
            state = writer.finish(
                method=method.name,
                step=step,
                chain=chain,
                norms=norms,
                scale=method.scale(norms, general),
                tensor_norms={tensor.name: (tensor.accumulated_norm, tensor.task_vector_norm) for tensor in tensors},
            )
            meet(processes)
    similarities = compare_sketches(sketched[step], earlier, tensors) if sketches else ()
    return state, _figures(tensors, state, previous, checkpoint.label, similarities)


@dataclass(frozen=True)
class _Step:
    """What all tensors of one step have in common."""

    base: Checkpoint
    checkpoint: Checkpoint
    previous: MergeState | None
    input_dtype: torch.dtype | None
    device: torch.device
    sketches: bool

    def read(self, tensor: PlannedTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Accumulated delta before the step and task vector of one tensor."""
        task_vector = read_task_vector(
            self.base, self.checkpoint, tensor.name, input_dtype=self.input_dtype, device=self.device
        )
        if self.previous is None:
            return torch.zeros((), dtype=torch.float64, device=self.device).expand(tensor.shape), task_vector
        return self.previous.read(tensor.name).to(self.device), task_vector

    def absorb(
        self,
        tensor: PlannedTensor,
        method: Method,
        parameters: BaseModel,
        step: int,
        writer: StateWriter | HeldStateWriter,
    ) -> tuple[TensorFigures, torch.Tensor]:
        """Absorb one tensor and write what became of it; its figures, and its length and sketch in one row."""
        accumulated, task_vector = self.read(tensor)
        length = frobenius_norm(task_vector)
        similarity = None
        if self.previous is not None:
            before = self.previous.manifest.tensors[tensor.name].accumulated_norm
            similarity = cosine(accumulated, task_vector, (before, length))
        row = torch.empty(0)
        if self.sketches:
            row = torch.cat([torch.tensor([length], dtype=torch.float32), sketch(tensor.name, task_vector)])
        absorbed, parts = self._absorbed(tensor, method, parameters, step, accumulated, task_vector)
        del accumulated, task_vector
        if not all(all_finite(values) for values in (absorbed.accumulated, *parts.values())):
            raise CheckpointError(
                f"{self.checkpoint.label}: tensor {tensor.name!r} grows beyond what float64 holds in step {step}",
                hint="do not merge this checkpoint; its values are out of all proportion",
            )
        writer.write(tensor.name, absorbed.accumulated)
        for part, values in parts.items():
            writer.write_part(_part_key(part, tensor.name), values)
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
            accumulated_norm=frobenius_norm(absorbed.accumulated),
            error=absorbed.error,
        )
        return figures, row

    def _absorbed(
        self,
        tensor: PlannedTensor,
        method: Method,
        parameters: BaseModel,
        step: int,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
    ) -> tuple[Absorbed, Mapping[str, torch.Tensor]]:
        if isinstance(method, PartedMethod):
            parts = {name: self._part(tensor, name, shape) for name, shape in method.parts(tensor.shape).items()}
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
                f"{self.checkpoint.label}: tensor {tensor.name!r}: {error}",
                hint="try another device; if it stays, please report it with the checkpoint's name",
            ) from error

    def _part(self, tensor: PlannedTensor, part: str, shape: tuple[int, ...]) -> torch.Tensor:
        values = None if self.previous is None else self.previous.read_part(_part_key(part, tensor.name))
        return torch.zeros(shape, dtype=torch.float64, device=self.device) if values is None else values.to(self.device)


@dataclass(frozen=True)
class _Sweep:
    """Implements `hubmerge.methods.Sweep` over the merged tensors of a plan."""

    step: _Step
    plan: MergePlan
    workers: int | None
    processes: Processes
    stop: Path

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        def see(tensor: PlannedTensor) -> Result:
            return look(*self.step.read(tensor))

        if self.processes.count == 1:
            yield from (result for _, result in as_done(self.plan.merged, see, workers=self.workers))
            return
        # A few tensors of each process at a time: what is told of them all at once could be large.
        at_once = TOLD_AT_ONCE * self.processes.count
        for begin in range(0, len(self.plan.merged), at_once):
            some = self.plan.merged[begin : begin + at_once]
            seen = do_share(
                some,
                see,
                processes=self.processes,
                cost=lambda tensor: float(tensor.elements),
                stop=self.stop,
                workers=self.workers,
            )
            for part in gather(self.processes, seen):
                yield from part.values()


@contextmanager
def _state_writer(
    folder: Path | None,
    shapes: Mapping[str, tuple[int, ...]],
    parts: Sequence[TensorSpec],
    processes: Processes,
) -> Iterator[StateWriter | HeldStateWriter]:
    """The writer of the new state. The first process lays out the files, then the others join it."""
    if folder is None:
        with HeldStateWriter(shapes, parts) as held:
            yield held
        return
    joins = processes.rank > 0
    if joins:
        meet(processes)
    with StateWriter(folder, shapes, parts, joins=joins) as writer:
        if not joins:
            meet(processes)
        yield writer


def _of_all(done: Mapping[int, Result], writer: StateWriter | HeldStateWriter, processes: Processes) -> list[Result]:
    """What came of every tensor in all processes; the first takes over what the others wrote."""
    if processes.count == 1 or isinstance(writer, HeldStateWriter):
        return in_order([done])
    written = writer.hand_over() if processes.rank > 0 else None
    told = gather(processes, (done, written))
    if processes.rank == 0:
        for _, others in told:
            if others is not None:
                writer.take_over(others)
    return in_order([results for results, _ in told])


def _part_key(part: str, name: str) -> str:
    return f"{part}/{name}"


def _parts(plan: MergePlan, method: Method) -> list[TensorSpec]:
    """What the method keeps beside the accumulated delta."""
    if not isinstance(method, PartedMethod):
        return []
    return [
        TensorSpec(_part_key(part, tensor.name), torch.float64, shape)
        for tensor in plan.merged
        for part, shape in method.parts(tensor.shape).items()
    ]


def _check_parts(previous: MergeState, parts: list[TensorSpec]) -> None:
    kept = {key for key in previous.manifest.parts if not key.startswith(SKETCH_PREFIX)}
    if kept != {spec.name for spec in parts}:
        raise CheckpointError(
            f"{previous.folder}: the state of step {previous.step} was merged by another form of "
            f"{previous.manifest.method}",
            hint="all entries must use the same form: give every entry a weight, or none",
        )


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


def _figures(
    tensors: list[TensorFigures],
    state: MergeState,
    previous: MergeState | None,
    label: str,
    similarities: tuple[Similarity, ...],
) -> StepFigures:
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
        similarities=similarities,
    )
