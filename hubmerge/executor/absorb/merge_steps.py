"""First pass of some steps: absorb the checkpoints' task vectors into the accumulated delta, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor, TensorSpec
from hubmerge.errors import CheckpointError
from hubmerge.executor.absorb.step_context import StepContext
from hubmerge.executor.absorb.step_input import StepInput, TensorStep, part_key
from hubmerge.executor.in_memory import InMemoryStateWriter
from hubmerge.executor.parallel.batching import Batch, batches
from hubmerge.executor.parallel.processes import (
    SINGLE_PROCESS,
    Processes,
    barrier,
    do_share,
    gather,
    in_order,
    stop_file,
    tell_of_others,
)
from hubmerge.executor.parallel.scheduling import as_done
from hubmerge.executor.state import MergeState, StateWriter, load_state
from hubmerge.executor.stats.similarity import (
    SKETCH_PREFIX,
    compare_sketches,
    earlier_sketches,
    sketch_key,
    sketch_specs,
)
from hubmerge.executor.stats.stats import Similarity, StepStats, overall_cosine, overall_share
from hubmerge.linalg import total_norm
from hubmerge.methods import Method, Norms
from hubmerge.methods.base import Result

CPU = torch.device("cpu")
TOLD_AT_ONCE = 8
"""Of so many tensors each process tells the others at one time what a sweep found."""


def goes_step_by_step(method: Method, incoming: StepInput, plan: MergePlan) -> bool:
    """Whether the method has to see the whole model of a step before it absorbs the first tensor of it."""
    return _chosen(method, incoming, plan).surveys_model


def merge_steps(
    base: Checkpoint,
    incoming: Sequence[StepInput],
    previous: MergeState | None,
    method: Method,
    plan: MergePlan,
    folder: Path | None,
    *,
    chain: str = "",
    input_dtype: torch.dtype | None = None,
    sketches: bool = True,
    device: torch.device = CPU,
    workers: int | None = None,
    on_tensor: Callable[[PlannedTensor], None] | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> tuple[MergeState, tuple[StepStats, ...]]:
    """Absorb checkpoints, one after another, and save the state after the last one in `folder`.

    Each tensor goes through all the steps before the next one is begun, so base model and state are read and the
    state is written once, however many steps there are. A method that `goes_step_by_step` takes one at a time.
    Without a folder the state stays in memory, the same in every digit.

    `previous` is the state of the step before, None at step 1. What concerns the whole model is taken from the
    parameters for the first merged tensor. `chain` is kept in the state. `input_dtype` is what all values are
    rounded to before the arithmetic, which is float64. `sketches` of the task vectors are kept in the state, so
    that a later one can be compared with all earlier ones.

    All of `processes` call this with the same arguments and do a share of the tensors each; the folder has to be on
    a file system that they share.

    The bytes of the state depend neither on how many steps are done at a time, nor on `workers`, nor on `processes`,
    nor on whether a run was interrupted. Memory of each process is bounded by a few float64 copies of the tensors
    worked on at one time (see `for_each_tensor`).

    Raises CheckpointError if a value is not finite, naming checkpoint and tensor, or if `previous` belongs to
    another merge; MachineError if the state cannot be written.
    """
    shapes = {tensor.name: tensor.shape for tensor in plan.merged}
    if previous is not None:
        _check_previous(previous, method, shapes)
    work = StepContext(base, incoming, previous, input_dtype, device, sketches)
    methods = [_chosen(method, one, plan) for one in incoming]
    parts = _parts(plan, methods[0])
    for step, one in enumerate(methods[1:], start=work.first + 1):
        if _parts(plan, one) != parts:
            raise _other_form(f"step {step} and the one before it ask for two forms of {method.name}")
    if previous is not None:
        _check_parts(previous, parts)
    stop = Path() if folder is None else stop_file(folder, processes)
    if methods[0].surveys_model:
        if len(incoming) > 1:
            raise ValueError(f"{method.name} takes one step at a time")
        sweep = _Sweep(work, plan, workers, processes, stop)
        methods = [methods[0].prepare_step(sweep, _general(incoming[0], plan), step=work.first)]
    steps = range(work.first, work.first + len(incoming))
    earlier = earlier_sketches(previous) if sketches else {}
    specs = [*parts, *(sketch_specs([*earlier, *steps], len(shapes)) if sketches else ())]
    with _state_writer(folder, shapes, specs, processes) as writer:
        some = batches(plan.merged, device)
        on_batch = None if on_tensor is None else _for_each(on_tensor)
        done = do_share(
            some,
            lambda batch: work.absorb(batch, methods, writer),
            processes=processes,
            cost=lambda batch: batch.flops,
            stop=stop,
            workers=workers,
            on_tensor=on_batch,
        )
        results = _in_plan_order(some, _of_all(done, writer, processes))
        tell_of_others(some, done, on_batch)
        told, sketched = _tell(work, methods, plan, results, earlier)
        if folder is not None and processes.rank > 0:
            barrier(processes)
            state = load_state(folder)
        else:
            for number, rows in sketched.items():
                writer.write_part(sketch_key(number), rows)
            last = told[-1]
            state = writer.finish(
                method=method.name,
                step=last.step,
                chain=chain,
                norms=Norms(last.accumulated_norm, _lengths(previous, told)),
                scale=last.scale,
                tensor_norms={one.name: (one.accumulated_norm, one.task_vector_norm) for one in last.tensors},
            )
            barrier(processes)
    return state, tuple(told)


def _general(incoming: StepInput, plan: MergePlan) -> BaseModel:
    """The parameters of a step where they concern the whole model."""
    return incoming.parameters_for(plan.merged[0].name)


def _chosen(method: Method, incoming: StepInput, plan: MergePlan) -> Method:
    """The method in the form that a step asks for."""
    return method.variant_for(_general(incoming, plan))


@dataclass(frozen=True)
class _Sweep:
    """Implements `hubmerge.methods.Sweep` over the merged tensors of a plan."""

    work: StepContext
    plan: MergePlan
    workers: int | None
    processes: Processes
    stop: Path

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        def see(tensor: PlannedTensor) -> Result:
            return look(self.work.accumulated_before(tensor), self.work.task_vector(tensor, self.work.incoming[0])[0])

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
) -> Iterator[StateWriter | InMemoryStateWriter]:
    """The writer of the new state. The first process lays out the files, then the others join it."""
    if folder is None:
        with InMemoryStateWriter(shapes, parts) as held:
            yield held
        return
    attach = processes.rank > 0
    if attach:
        barrier(processes)
    with StateWriter(folder, shapes, parts, attach=attach) as writer:
        if not attach:
            barrier(processes)
        yield writer


def _of_all(
    done: Mapping[int, Result], writer: StateWriter | InMemoryStateWriter, processes: Processes
) -> list[Result]:
    """What came of every tensor in all processes; the first takes over what the others wrote."""
    if processes.count == 1 or isinstance(writer, InMemoryStateWriter):
        return in_order([done])
    written = writer.export_written() if processes.rank > 0 else None
    told = gather(processes, (done, written))
    if processes.rank == 0:
        for _, others in told:
            if others is not None:
                writer.import_written(others)
    return in_order([results for results, _ in told])


def _for_each(on_tensor: Callable[[PlannedTensor], None]) -> Callable[[Batch], None]:
    """`on_tensor` for every tensor of a batch."""

    def on_batch(batch: Batch) -> None:
        for tensor in batch.tensors:
            on_tensor(tensor)

    return on_batch


def _in_plan_order(some: Sequence[Batch], results: Sequence[Sequence[Result]]) -> list[Result]:
    """What came of every tensor, from what came of the batches."""
    found = {
        place: result
        for batch, own in zip(some, results, strict=True)
        for place, result in zip(batch.places, own, strict=True)
    }
    return [found[place] for place in sorted(found)]


def _parts(plan: MergePlan, method: Method) -> list[TensorSpec]:
    """What the method keeps beside the accumulated delta."""
    return [
        TensorSpec(part_key(part, tensor.name), torch.float64, shape)
        for tensor in plan.merged
        for part, shape in method.state_parts(tensor.shape).items()
    ]


def _check_parts(previous: MergeState, parts: list[TensorSpec]) -> None:
    kept = {key for key in previous.manifest.parts if not key.startswith(SKETCH_PREFIX)}
    if kept != {spec.name for spec in parts}:
        raise _other_form(
            f"{previous.folder}: the state of step {previous.step} was merged by another form of "
            f"{previous.manifest.method}"
        )


def _other_form(message: str) -> CheckpointError:
    return CheckpointError(message, hint="all entries must use the same form: give every entry a weight, or none")


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


def _lengths(previous: MergeState | None, told: Sequence[StepStats]) -> tuple[float, ...]:
    """The lengths of all task vectors so far."""
    before = () if previous is None else previous.manifest.task_vector_norms
    return (*before, *(figures.task_vector_norm for figures in told))


def _tell(
    work: StepContext,
    methods: Sequence[Method],
    plan: MergePlan,
    results: Sequence[Sequence[TensorStep]],
    earlier: Mapping[int, torch.Tensor],
) -> tuple[list[StepStats], dict[int, torch.Tensor]]:
    """The figures of every step, and the sketches of all task vectors so far, by step."""
    told: list[StepStats] = []
    sketched = dict(earlier)
    before = {} if work.previous is None else work.previous.manifest.tensors
    previous_norms = [before[tensor.name].accumulated_norm if before else 0.0 for tensor in plan.merged]
    for index, (incoming, method) in enumerate(zip(work.incoming, methods, strict=True)):
        step = work.first + index
        tensors = tuple(result[index].figures for result in results)
        task_vector_norm = total_norm(tensor.task_vector_norm for tensor in tensors)
        accumulated_norm = total_norm(tensor.accumulated_norm for tensor in tensors)
        similarities: tuple[Similarity, ...] = ()
        if work.sketches:
            rows = torch.stack([result[index].sketch for result in results])
            similarities = compare_sketches(rows, sketched, tensors)
            sketched[step] = rows
        norms = Norms(accumulated_norm, (*_lengths(work.previous, told), task_vector_norm))
        figures = StepStats(
            step=step,
            checkpoint=incoming.checkpoint.label,
            method=method.name,
            task_vector_norm=task_vector_norm,
            accumulated_norm=accumulated_norm,
            scale=method.scale(norms, _general(incoming, plan)),
            cosine=overall_cosine(tensors, previous_norms),
            removed_share=overall_share(tensors),
            tensors=tensors,
            similarities=similarities,
        )
        told.append(figures)
        previous_norms = [tensor.accumulated_norm for tensor in tensors]
    return told, sketched
