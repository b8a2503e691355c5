"""Second pass of a step: the merged model, base model + accumulated delta / scale, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch

from hubmerge.checkpoints import (
    Checkpoint,
    MergePlan,
    PlannedTensor,
    ShardedWriter,
    WrittenFile,
    plan_shards,
    written_metadata,
    written_names,
)
from hubmerge.errors import CheckpointError
from hubmerge.executor.parallel.batching import TensorBatch, batch_tensors, for_each_of
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parallel.device import use_own_stream
from hubmerge.executor.parallel.processes import (
    Processes,
    barrier,
    gather,
    ordered_results,
    report_other_shares,
    run_share,
    stop_file,
)
from hubmerge.executor.parallel.scheduling import Item
from hubmerge.executor.parts import AVERAGE
from hubmerge.executor.read_out import CPU, ReadOut, delta_pieces, pieces_of
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, first_not_finite, rounded_pieces
from hubmerge.executor.state import State
from hubmerge.linalg import cast_once, frobenius_norm, total_norm

Result = TypeVar("Result")

MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class WrittenModel:
    """Files of a merged model, and the effect of rounding to their dtypes.

    `rounding` is the norm of the rounding error over the norm of the merged delta, both over all merged tensors
    together; None if nothing changed. From about 1 on, the dtype is too coarse for the merged delta. `drift` is the
    norm of the merged delta, None if it was not measured.
    """

    files: tuple[WrittenFile, ...]
    rounding: float | None
    drift: float | None


def write_merged(
    base: Checkpoint,
    state: State,
    plan: MergePlan,
    folder: Path,
    *,
    read_out: ReadOut | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    older_shards: bool = False,
    context: ExecutorContext = DEFAULT_CONTEXT,
) -> WrittenModel:
    """Write the merged model's weights after the step of `state` into `folder`, with an index if there are shards.

    Every tensor is rounded once, to its dtype in `plan`. Tensors that stay the base model's keep their bytes and, if
    they are large together, are in shards of their own. Files have the names and the metadata of the base model's.

    Args:
        base: the base model.
        state: the state after the step.
        plan: the tensors to write.
        folder: the folder of the files; with several processes, on a file system that they share.
        read_out: the method, if it reads the merged delta out of the state.
        max_shard_bytes: largest size of a shard in bytes, unless a single tensor is larger.
        older_shards: distribute the tensors as version 0.1.0 did, see `plan_shards`.
        context: that of `merge_steps`.

    Raises:
        CheckpointError: a value does not fit into its dtype.
        MachineError: the folder cannot be written.
    """
    with shared_writer(base, plan, folder, max_shard_bytes, context.processes, older_shards=older_shards) as writer:
        source = _Source.of(base, state, read_out, context)
        stop, on_batch = stop_file(folder, context.processes), for_each_of(context.on_tensor)
        work, write = batch_tensors(plan.tensors, together=source.together), partial(_write_batch, writer, source)
        written = list(chain.from_iterable(write_tensors(writer, work, write, stop, context, on_batch)))
        files = gather(context.processes, () if context.processes.rank > 0 else writer.commit())[0]
    drift = state.manifest.accumulated_norm / state.scale
    if read_out is not None:
        drift = total_norm(one.drift for one in written)
    return WrittenModel(files, total_norm(one.error for one in written) / drift if drift > 0.0 else None, drift)


@dataclass(frozen=True)
class _Source:
    """Inputs of the merged model's tensors."""

    base: Checkpoint
    state: State
    input_dtype: torch.dtype | None
    read_out: ReadOut | None
    device: torch.device
    together: bool = False
    """True if the merged deltas of several matrices are read together."""
    deltas: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Merged deltas that are known already."""

    @classmethod
    def of(cls, base: Checkpoint, state: State, read_out: ReadOut | None, context: ExecutorContext) -> _Source:
        """Return the inputs of a model that is written with the settings of a context."""
        together = context.together and read_out is not None and read_out.reads_together
        return cls(base, state, context.input_dtype, read_out, context.device, together)


@dataclass
class _Norms:
    """Norms of the rounding error of a tensor and of its merged delta."""

    error: float = 0.0
    drift: float = 0.0

    def add(self, error: float, drift: float) -> None:
        """Add those of one piece."""
        self.error, self.drift = total_norm([self.error, error]), total_norm([self.drift, drift])


@contextmanager
def shared_writer(
    base: Checkpoint,
    plan: MergePlan,
    folder: Path,
    max_shard_bytes: int,
    processes: Processes,
    *,
    older_shards: bool = False,
) -> Iterator[ShardedWriter]:
    """Open the writer of a merged model's shards. The first process creates the files, then the others attach to them.

    The arguments are those of `write_merged`.
    """
    kept = {tensor.name for tensor in plan.tensors if tensor.copied}
    names = written_names(base, plan.tensors)
    shards = plan_shards(plan.specs, max_shard_bytes, kept=kept, older=older_shards, names=names)
    create = partial(ShardedWriter, folder, shards, written_metadata(base), index=names.index(), digests=False)
    attach = processes.rank > 0
    if attach:
        barrier(processes)
    with create(attach=attach) as writer:
        if not attach:
            barrier(processes)
        yield writer


def write_tensors(
    writer: ShardedWriter,
    tensors: Sequence[Item],
    write: Callable[[Item], Result],
    stop: Path,
    context: ExecutorContext,
    on_tensor: Callable[[Item], None] | None,
) -> list[Result]:
    """Write all tensors, shared among threads and processes, and return the results of `write` in their order.

    The tensors may be batches. `on_tensor` is called with each that is done.
    """
    attached = context.processes.rank > 0
    done = run_share(
        tensors,
        write,
        processes=context.processes,
        cost=lambda tensor: float(tensor.elements),
        stop=stop,
        workers=context.workers,
        on_tensor=on_tensor,
    )
    gathered = gather(context.processes, (done, writer.export_written() if attached else {}))
    report_other_shares(tensors, done, on_tensor)
    for _, others in () if attached else gathered:
        writer.import_written(others)
    return ordered_results([results for results, _ in gathered])


def _write_batch(writer: ShardedWriter, source: _Source, batch: TensorBatch) -> list[_Norms]:
    """Write a batch of tensors."""
    if source.together and source.read_out is not None and batch.tensors[0].action == "merge-matrix":
        use_own_stream(source.device)
        source = replace(source, deltas=source.read_out.deltas(source.state, batch.tensors, source.device))
    return [_write_tensor(writer, source, tensor) for tensor in batch.tensors]


def _write_tensor(writer: ShardedWriter, source: _Source, tensor: PlannedTensor) -> _Norms:
    """Write one tensor."""
    norms = _Norms()
    if tensor.copied:
        writer.write_raw(tensor.name, source.base.raw_chunks(tensor.name))
    else:
        writer.write_pieces(tensor.name, _rounded(source, tensor, norms))
    return norms


def merged_value(
    base: Checkpoint,
    state: State,
    tensor: PlannedTensor,
    input_dtype: torch.dtype | None,
    read_out: ReadOut | None = None,
) -> torch.Tensor:
    """Return one tensor of the merged model after the step of `state`, in its planned dtype.

    Raises:
        CheckpointError: a value does not fit into that dtype.
    """
    pieces = _rounded(_Source(base, state, input_dtype, read_out, CPU), tensor, _Norms())
    return torch.cat([piece.clone() for piece in pieces]).view(tensor.shape)


def _rounded(source: _Source, tensor: PlannedTensor, norms: _Norms) -> Iterator[torch.Tensor]:
    """Yield the value of `merged_value`, flat, in pieces, and add up the norms of their rounding errors."""
    if not tensor.merged:
        for kept in source.base.read_pieces(tensor.name, ELEMENTS_AT_ONCE):
            yield cast_once(kept, tensor.out_dtype)
        return
    averaged = tensor.action == AVERAGE
    for value in source.state.read_pieces(tensor.name, ELEMENTS_AT_ONCE) if averaged else _sums(source, tensor, norms):
        if tensor.never_negative and bool((value < 0.0).any()) and (averaged or not is_negative(source.base, tensor)):
            raise negative_result(f"merged model of step {source.state.step}", tensor)
        rounded = cast_once(value, tensor.out_dtype)
        if not (all_finite(rounded) or (averaged and torch.equal(rounded.isfinite(), value.isfinite()))):
            raise _does_not_fit(source, tensor)
        yield rounded
        if rounded.dtype != value.dtype and not averaged:
            # torch has no arithmetic for 8-bit floats.
            value -= rounded.to(torch.float64)
            norms.add(frobenius_norm(value), 0.0)


def _sums(source: _Source, tensor: PlannedTensor, norms: _Norms) -> Iterator[torch.Tensor]:
    """Yield base model plus merged delta, float64, in pieces."""
    known = source.deltas.get(tensor.name)
    unread = delta_pieces(source.state, tensor, source.read_out, source.device)
    deltas = unread if known is None else pieces_of(known)
    starts = rounded_pieces(source.base, tensor.name, source.input_dtype)
    for value, start in zip(deltas, starts, strict=True):
        if source.read_out is not None:
            norms.add(0.0, frobenius_norm(value))
        value += start.to(torch.float64)
        yield value


def is_negative(base: Checkpoint, tensor: PlannedTensor) -> bool:
    """Return True if the base model itself has a negative value in a tensor, which then is no variance."""
    return any(bool((piece.to(torch.float32) < 0.0).any()) for piece in base.read_pieces(tensor.name, ELEMENTS_AT_ONCE))


def negative_result(label: str, tensor: PlannedTensor) -> CheckpointError:
    """Return the error about a merged tensor with negative values where there must be none."""
    return CheckpointError(
        f"{label}: tensor {tensor.name!r} would have negative values, expected none below 0",
        hint=f'keep that of the base model: tensors: {{exclude: ["{tensor.name}"]}}; or, if version 0.1.0 began this '
        "stream, merge the checkpoints anew, into another target repo, to average its statistics",
        tensor=tensor.name,
    )


def _does_not_fit(source: _Source, tensor: PlannedTensor) -> CheckpointError:
    state = source.state
    averaged = tensor.action == AVERAGE
    again = replace(source, deltas={})  # pieces of known deltas were changed
    pieces = state.read_pieces(tensor.name, ELEMENTS_AT_ONCE) if averaged else _sums(again, tensor, _Norms())
    value = torch.cat([piece.clone() for piece in pieces]).view(tensor.shape)
    return CheckpointError(
        f"merged model of step {state.step}: tensor {tensor.name!r} does not fit into {tensor.out_dtype}: "
        f"{first_not_finite(cast_once(value, tensor.out_dtype))}",
        hint="choose a wider `out_dtype` in the recipe",
    )
