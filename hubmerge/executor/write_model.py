"""Second pass of a step: the merged model, base model + accumulated delta / scale, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor, Shard, ShardedWriter, WrittenFile, plan_shards
from hubmerge.errors import CheckpointError
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parallel.processes import (
    Processes,
    barrier,
    gather,
    ordered_results,
    report_other_shares,
    run_share,
    stop_file,
)
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, first_not_finite, rounded_pieces
from hubmerge.executor.state import State
from hubmerge.linalg import cast_once, frobenius_norm, total_norm

MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class WrittenModel:
    """Files of a merged model, and the effect of rounding to their dtypes.

    `rounding` is the norm of the rounding error over the norm of the merged delta, both over all merged tensors
    together; None if nothing changed. From about 1 on, the dtype is too coarse for the merged delta.
    """

    files: tuple[WrittenFile, ...]
    rounding: float | None


def write_merged(
    base: Checkpoint,
    state: State,
    plan: MergePlan,
    folder: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    older_shards: bool = False,
    context: ExecutorContext = DEFAULT_CONTEXT,
) -> WrittenModel:
    """Write the merged model's weights after the step of `state` into `folder`, with an index if there are shards.

    Every tensor is rounded once, to its dtype in `plan`. Tensors that stay the base model's keep their bytes and, if
    they are large together, are in shards of their own.

    Args:
        base: the base model.
        state: the state after the step.
        plan: the tensors to write.
        folder: the folder of the files; with several processes, on a file system that they share.
        max_shard_bytes: largest size of a shard in bytes, unless a single tensor is larger.
        older_shards: distribute the tensors as version 0.1.0 did, see `plan_shards`.
        context: that of `merge_steps`.

    Raises:
        CheckpointError: a value does not fit into its dtype.
        MachineError: the folder cannot be written.
    """
    kept = {tensor.name for tensor in plan.tensors if tensor.copied}
    shards = plan_shards(plan.specs, max_shard_bytes, kept=kept, older=older_shards)
    with _shared_writer(folder, shards, context.processes) as writer:
        write = partial(_write_tensor, writer, base, state, context.input_dtype)
        errors = _write_tensors(writer, plan.tensors, write, stop_file(folder, context.processes), context)
        files = gather(context.processes, () if context.processes.rank > 0 else writer.commit())[0]
    moved = state.manifest.accumulated_norm / state.scale
    return WrittenModel(files, total_norm(errors) / moved if moved > 0.0 else None)


@contextmanager
def _shared_writer(folder: Path, shards: Sequence[Shard], processes: Processes) -> Iterator[ShardedWriter]:
    """Open the writer of the shards. The first process creates the files, then the others attach to them."""
    attach = processes.rank > 0
    if attach:
        barrier(processes)
    with ShardedWriter(folder, shards, digests=False, attach=attach) as writer:
        if not attach:
            barrier(processes)
        yield writer


def _write_tensors(
    writer: ShardedWriter,
    tensors: Sequence[PlannedTensor],
    write: Callable[[PlannedTensor], float],
    stop: Path,
    context: ExecutorContext,
) -> list[float]:
    """Write all tensors, shared among threads and processes, and return the results of `write` in their order."""
    attached = context.processes.rank > 0
    done = run_share(
        tensors,
        write,
        processes=context.processes,
        cost=lambda tensor: float(tensor.elements),
        stop=stop,
        workers=context.workers,
        on_tensor=context.on_tensor,
    )
    gathered = gather(context.processes, (done, writer.export_written() if attached else {}))
    report_other_shares(tensors, done, context.on_tensor)
    for _, others in () if attached else gathered:
        writer.import_written(others)
    return ordered_results([results for results, _ in gathered])


def _write_tensor(
    writer: ShardedWriter, base: Checkpoint, state: State, input_dtype: torch.dtype | None, tensor: PlannedTensor
) -> float:
    """Write one tensor and return the norm of its rounding error."""
    if tensor.copied:
        writer.write_raw(tensor.name, base.raw_chunks(tensor.name))
        return 0.0
    errors: list[float] = []
    writer.write_pieces(tensor.name, _rounded(base, state, tensor, input_dtype, errors))
    return total_norm(errors)


def merged_value(
    base: Checkpoint, state: State, tensor: PlannedTensor, input_dtype: torch.dtype | None
) -> torch.Tensor:
    """Return one tensor of the merged model after the step of `state`, in its planned dtype.

    Raises:
        CheckpointError: a value does not fit into that dtype.
    """
    pieces = _rounded(base, state, tensor, input_dtype, [])
    return torch.cat([piece.clone() for piece in pieces]).view(tensor.shape)


def _rounded(
    base: Checkpoint, state: State, tensor: PlannedTensor, input_dtype: torch.dtype | None, errors: list[float]
) -> Iterator[torch.Tensor]:
    """Yield the value of `merged_value`, flat, in pieces; the norms of their rounding errors are added to `errors`."""
    if not tensor.merged:
        for kept in base.read_pieces(tensor.name, ELEMENTS_AT_ONCE):
            yield cast_once(kept, tensor.out_dtype)
        return
    for value, start in zip(
        state.read_pieces(tensor.name, ELEMENTS_AT_ONCE),
        rounded_pieces(base, tensor.name, input_dtype),
        strict=True,
    ):
        averaged = tensor.action == "average"
        if not averaged:
            value /= state.scale
            value += start.to(torch.float64)
        if tensor.never_negative and bool((value < 0.0).any()):
            raise _negative(state, tensor)
        rounded = cast_once(value, tensor.out_dtype)
        if not (all_finite(rounded) or (averaged and torch.equal(rounded.isfinite(), value.isfinite()))):
            raise _does_not_fit(base, state, tensor, input_dtype)
        yield rounded
        if rounded.dtype != value.dtype and not averaged:
            # torch has no arithmetic for 8-bit floats.
            value -= rounded.to(torch.float64)
            errors.append(frobenius_norm(value))


def _negative(state: State, tensor: PlannedTensor) -> CheckpointError:
    return CheckpointError(
        f"merged model of step {state.step}: tensor {tensor.name!r} would have negative values, expected none below 0",
        hint=f'keep that of the base model: tensors: {{exclude: ["{tensor.name}"]}}; or, if version 0.1.0 began this '
        "stream, merge the checkpoints anew, into another target repo, to average its statistics",
        tensor=tensor.name,
    )


def _does_not_fit(
    base: Checkpoint, state: State, tensor: PlannedTensor, input_dtype: torch.dtype | None
) -> CheckpointError:
    start = base.read(tensor.name)
    value = state.read(tensor.name)
    rounded = start if input_dtype is None else cast_once(start, input_dtype)
    if tensor.action != "average":
        value = value.div_(state.scale).add_(rounded.to(torch.float64))
    return CheckpointError(
        f"merged model of step {state.step}: tensor {tensor.name!r} does not fit into {tensor.out_dtype}: "
        f"{first_not_finite(cast_once(value, tensor.out_dtype))}",
        hint="choose a wider `out_dtype` in the recipe",
    )
