"""First pass of a batch of steps: task vectors into accumulated deltas, tensor by tensor.

The stages: begin (check the input, choose the variants), survey (if the method must see the whole model first), absorb
(all tensors, shared among threads and processes), summarize (statistics of each step), finish (the new state).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import overload

from hubmerge.checkpoints import TensorSpec
from hubmerge.errors import CheckpointError
from hubmerge.executor.absorb.batch_work import StepBatch
from hubmerge.executor.absorb.step_input import Merge, StepInput, TensorStep
from hubmerge.executor.absorb.summary import BatchSummary, summarize
from hubmerge.executor.absorb.survey import survey
from hubmerge.executor.in_memory import InMemoryState, InMemoryStateWriter
from hubmerge.executor.parallel.batching import TensorBatch, batch_tensors, for_each_of
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parallel.processes import (
    barrier,
    gather,
    ordered_results,
    report_other_shares,
    run_share,
    stop_file,
)
from hubmerge.executor.parts import part_dtypes, part_key, state_parts
from hubmerge.executor.state import MergeState, State, load_state
from hubmerge.executor.state_writer import AnyStateWriter, StateSummary, StateWriter
from hubmerge.executor.stats.similarity import SKETCH_PREFIX
from hubmerge.executor.stats.stats import StepStats
from hubmerge.methods import Norms
from hubmerge.methods.readers import saved_name


def needs_single_steps(merge: Merge, step_input: StepInput) -> bool:
    """Return True if the method must see the whole model of a step before it absorbs the first tensor."""
    return merge.variant(step_input).surveys_model


@overload
def merge_steps(
    merge: Merge,
    inputs: Sequence[StepInput],
    previous: State | None,
    folder: Path,
    *,
    chain: str = ...,
    sketches: bool = ...,
    older_steps: int = ...,
    context: ExecutorContext = ...,
) -> tuple[MergeState, tuple[StepStats, ...]]: ...


@overload
def merge_steps(
    merge: Merge,
    inputs: Sequence[StepInput],
    previous: State | None,
    folder: None,
    *,
    chain: str = ...,
    sketches: bool = ...,
    older_steps: int = ...,
    context: ExecutorContext = ...,
) -> tuple[InMemoryState, tuple[StepStats, ...]]: ...


@overload
def merge_steps(
    merge: Merge,
    inputs: Sequence[StepInput],
    previous: State | None,
    folder: Path | None,
    *,
    chain: str = ...,
    sketches: bool = ...,
    older_steps: int = ...,
    context: ExecutorContext = ...,
) -> tuple[State, tuple[StepStats, ...]]: ...


def merge_steps(
    merge: Merge,
    inputs: Sequence[StepInput],
    previous: State | None,
    folder: Path | None,
    *,
    chain: str = "",
    sketches: bool = True,
    older_steps: int = 0,
    context: ExecutorContext = DEFAULT_CONTEXT,
) -> tuple[State, tuple[StepStats, ...]]:
    """Merge checkpoints, one after another, and save the state after the last one.

    Each tensor goes through all steps before the next one is begun, so base model and state are read and the state is
    written once. The bytes of the state do not depend on batches, threads, processes or interruptions. Each process
    needs a few float64 copies of the tensors at work.

    Args:
        merge: base model, method and plan.
        inputs: one for each step. A method that `needs_single_steps` takes one at a time.
        previous: the state of the step before; None at step 1.
        folder: the folder of the new state, on a file system that all processes share; None keeps it in memory.
        chain: digest of all inputs, saved in the state.
        sketches: save sketches of the task vectors, so that later ones can be compared with earlier ones.
        older_steps: last step that version 0.1.0 merged; up to it, the sketches of all steps are saved.
        context: device, threads and processes. All processes make the same call.

    Returns:
        The state after the last step, and the statistics of every step.

    Raises:
        CheckpointError: a value is not finite, or `previous` belongs to another merge.
        MachineError: the state cannot be written.
    """
    stop = Path() if folder is None else stop_file(folder, context.processes)
    batch = replace(_begin(merge, inputs, previous, sketches=sketches, context=context), older_steps=older_steps)
    batch = survey(batch, stop) if batch.methods[0].surveys_model else batch
    with _state_writer(batch, folder) as writer:
        summary = summarize(batch, _absorb(batch, writer, stop))
        return _finish(batch, summary, writer, folder, chain), summary.stats


def _begin(
    merge: Merge, inputs: Sequence[StepInput], previous: State | None, *, sketches: bool, context: ExecutorContext
) -> StepBatch:
    """Choose the variant of the method for each step, and check that steps and previous state fit together."""
    batch = StepBatch(merge, inputs, [merge.variant(one) for one in inputs], previous, sketches, context)
    if previous is not None:
        _check_previous(previous, merge)
    parts = _part_specs(batch, 0)
    for index, step in enumerate(batch.steps):
        if _part_specs(batch, index) != parts:
            raise _other_variant(f"step {step} and the step before it select two variants of {merge.method.name}")
    if previous is not None:
        kept = {key for key in previous.manifest.parts if not key.startswith(SKETCH_PREFIX)}
        if kept != {spec.name for spec in parts}:
            raise _other_variant(
                f"{previous.label}: the state of step {previous.step} was merged by another variant of "
                f"{previous.manifest.method}"
            )
    return batch


def _absorb(batch: StepBatch, writer: AnyStateWriter, stop: Path) -> list[list[TensorStep]]:
    """Do all steps on all tensors; return the steps of each tensor in the order of the plan."""
    context = batch.context
    work = batch_tensors(batch.merge.plan.merged, together=context.together)
    on_batch = for_each_of(context.on_tensor)
    done = run_share(
        work,
        lambda tensors: batch.absorb(tensors, writer),
        processes=context.processes,
        cost=lambda tensors: tensors.flops,
        stop=stop,
        workers=context.workers,
        on_tensor=on_batch,
    )
    if context.processes.count == 1:
        results = ordered_results([done])
    else:
        written = writer.export_written() if isinstance(writer, StateWriter) and context.processes.rank > 0 else None
        gathered = gather(context.processes, (done, written))
        if isinstance(writer, StateWriter) and context.processes.rank == 0:
            for _, others in gathered:
                if others is not None:
                    writer.import_written(others)
        results = ordered_results([own for own, _ in gathered])
    report_other_shares(work, done, on_batch)
    return _in_plan_order(work, results)


def _finish(batch: StepBatch, summary: BatchSummary, writer: AnyStateWriter, folder: Path | None, chain: str) -> State:
    """Return the state that the first process completed, in memory that of each process."""
    processes = batch.context.processes
    if folder is not None and processes.rank > 0:
        barrier(processes)
        return load_state(folder)
    state = _complete(batch, summary, writer, chain)
    barrier(processes)
    return state


def _complete(batch: StepBatch, summary: BatchSummary, writer: AnyStateWriter, chain: str) -> State:
    """Write the sketches, and complete the state."""
    for key, rows in summary.sketches.parts().items():
        writer.write_part(key, rows)
    last = summary.stats[-1]
    return writer.finish(
        StateSummary(
            method=saved_name(batch.merge.method),
            step=last.step,
            chain=chain,
            norms=Norms(last.accumulated_norm, summary.task_vector_norms),
            scale=last.scale,
            dtype=batch.merge.state_dtype,
            averaged=tuple(tensor.name for tensor in batch.merge.plan.averaged),
            tensor_norms={one.name: (one.accumulated_norm, one.task_vector_norm) for one in last.tensors},
        )
    )


@contextmanager
def _state_writer(batch: StepBatch, folder: Path | None) -> Iterator[AnyStateWriter]:
    """Open the writer of the new state. The first process creates the files, then the others attach to them."""
    shapes, processes = batch.merge.shapes, batch.context.processes
    if folder is None:
        yield InMemoryStateWriter(shapes)
        return
    specs = _part_specs(batch, 0)
    if batch.sketches:
        specs += batch.sketches_before().specs_after(batch.steps, len(shapes))
    attach = processes.rank > 0
    if attach:
        barrier(processes)
    with StateWriter(folder, shapes, specs, attach=attach, dtype=batch.merge.state_dtype) as writer:
        if not attach:
            barrier(processes)
        yield writer


def _part_specs(batch: StepBatch, index: int) -> list[TensorSpec]:
    """Return the state parts of all tensors for one step of the batch."""
    return [
        TensorSpec(part_key(part, tensor.name), dtypes[part], shape)
        for tensor in batch.merge.plan.merged
        for dtypes in (part_dtypes(batch.methods[index], tensor, batch.merge.state_dtype),)
        for part, shape in state_parts(batch.methods[index], tensor).items()
    ]


def _in_plan_order(work: Sequence[TensorBatch], results: Sequence[list[list[TensorStep]]]) -> list[list[TensorStep]]:
    found = {
        place: steps
        for batch, own in zip(work, results, strict=True)
        for place, steps in zip(batch.places, own, strict=True)
    }
    return [found[place] for place in sorted(found)]


def _other_variant(message: str) -> CheckpointError:
    return CheckpointError(message, hint="use one variant for all entries: give every entry a weight, or none")


def _check_previous(previous: State, merge: Merge) -> None:
    different = previous.first_difference(merge.shapes)
    averaged = set(previous.manifest.averaged) == {tensor.name for tensor in merge.plan.averaged}
    same_dtype = previous.dtype == merge.state_dtype
    if previous.manifest.method == saved_name(merge.method) and different is None and averaged and same_dtype:
        return
    if not same_dtype:
        problem = f"is in {previous.manifest.dtype}, not in {str(merge.state_dtype).removeprefix('torch.')}"
    elif different is None and not averaged:
        problem = "treats other tensors as statistics, which are averaged (an earlier version added them up)"
    elif different is None:
        problem = f"was merged by {previous.manifest.method}, not by {saved_name(merge.method)}"
    else:
        problem = f"does not have the tensors to merge; the first difference is {different!r}"
    raise CheckpointError(
        f"{previous.label}: the state of step {previous.step} {problem}",
        hint="it belongs to another merge: use another folder, or remove it and run again",
        tensor=different,
    )
