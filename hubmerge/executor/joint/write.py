"""A joint merge into files: every tensor is merged, rounded once and written, one block after another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from hubmerge.checkpoints import MergePlan, PlannedTensor, ShardedWriter, WrittenFile
from hubmerge.errors import CheckpointError
from hubmerge.executor.joint.inputs import JointMerge
from hubmerge.executor.joint.statistics import averaged
from hubmerge.executor.joint.tensor import JointTensor
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.executor.parallel.processes import gather, stop_file
from hubmerge.executor.reading import ELEMENTS_AT_ONCE, all_finite, first_not_finite
from hubmerge.executor.write_model import MAX_SHARD_BYTES, is_negative, negative_result, shared_writer, write_tensors
from hubmerge.linalg import cast_once


def write_joint(
    joint: JointMerge,
    plan: MergePlan,
    folder: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    context: ExecutorContext = DEFAULT_CONTEXT,
) -> tuple[WrittenFile, ...]:
    """Merge all models and write the merged model's weights into `folder`, with an index if there are shards.

    Args:
        joint: the inputs.
        plan: the tensors to write: those of the merge, or some of them.
        folder: the folder of the files; with several processes, on a file system that they share.
        max_shard_bytes: largest size of a shard in bytes, unless a single tensor is larger.
        context: device, threads and processes. All processes make the same call.

    Raises:
        CheckpointError: a value is not finite, or does not fit into its dtype.
        MachineError: the folder cannot be written.
    """
    with shared_writer(joint.base, plan, folder, max_shard_bytes, context.processes) as writer:
        write = partial(_write_tensor, writer, joint, context)
        write_tensors(writer, plan.tensors, write, stop_file(folder, context.processes), context, context.on_tensor)
        return gather(context.processes, () if context.processes.rank > 0 else writer.commit())[0]


def _write_tensor(writer: ShardedWriter, joint: JointMerge, context: ExecutorContext, tensor: PlannedTensor) -> None:
    """Write one tensor."""
    if tensor.copied:
        writer.write_raw(tensor.name, joint.base.raw_chunks(tensor.name))
    else:
        writer.write_pieces(tensor.name, merged_pieces(joint.inputs_of(tensor.name), tensor, context))


def merged_pieces(joint: JointMerge, tensor: PlannedTensor, context: ExecutorContext) -> Iterator[torch.Tensor]:
    """Yield one tensor of the merged model in its planned dtype, flat, block by block.

    Raises:
        CheckpointError: a value is not finite, or does not fit into its dtype.
    """
    if not tensor.merged:
        for kept in joint.base.read_pieces(tensor.name, ELEMENTS_AT_ONCE):
            yield cast_once(kept, tensor.out_dtype)
        return
    if tensor.action == "average":
        yield cast_once(averaged(joint, tensor, context.input_dtype), tensor.out_dtype).reshape(-1)
        return
    try:
        for values in JointTensor(joint, tensor, context).merged():
            rounded = cast_once(values, tensor.out_dtype).cpu()
            if not all_finite(rounded):
                raise _does_not_fit(joint, tensor, values)
            if tensor.never_negative and bool((values < 0.0).any()) and not is_negative(joint.base, tensor):
                raise negative_result(joint.method.name, tensor)
            yield rounded
    except (LinAlgError, ValueError) as error:
        raise CheckpointError(
            f"{joint.method.name}: tensor {tensor.name!r}: {error}",
            hint="keep that of the base model: "
            f'tensors: {{exclude: ["{tensor.name}"]}}; or change the parameters of the method',
            tensor=tensor.name,
        ) from error


def _does_not_fit(joint: JointMerge, tensor: PlannedTensor, values: torch.Tensor) -> CheckpointError:
    if all_finite(values):
        message = f"does not fit into {tensor.out_dtype}: {first_not_finite(cast_once(values, tensor.out_dtype))}"
        hint = "choose a wider `out_dtype` in the recipe"
    else:
        message, hint = f"is not finite: {first_not_finite(values)}", "check the weights of the recipe"
    return CheckpointError(
        f"{joint.method.name}: merged tensor {tensor.name!r} {message}", hint=hint, tensor=tensor.name
    )
