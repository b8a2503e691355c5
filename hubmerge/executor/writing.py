"""Second pass of a step: the merged model, base model + accumulated delta / scale, in one rounding."""

from __future__ import annotations

from pathlib import Path

import torch

from hubmerge.checkpoints import Checkpoint, MergePlan, PlannedTensor, ShardedWriter, WrittenFile, plan_shards
from hubmerge.errors import CheckpointError
from hubmerge.executor.reading import all_finite, first_not_finite, read_float64
from hubmerge.executor.scheduling import OnTensor, for_each_tensor
from hubmerge.linalg import cast_once
from hubmerge.state import MergeState

MAX_SHARD_BYTES = 5_000_000_000


def write_merged(
    base: Checkpoint,
    state: MergeState,
    plan: MergePlan,
    folder: Path,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    input_dtype: torch.dtype | None = None,
    workers: int | None = None,
    on_tensor: OnTensor | None = None,
) -> tuple[WrittenFile, ...]:
    """Write the merged model's weights after the step of `state` into `folder`, and the index if there are shards.

    Every tensor is rounded once, to its dtype in `plan`; those that stay the base model's keep their bytes and
    have shards of their own. `input_dtype` is that of `merge_step`. The bytes do not depend on `workers`.

    Raises CheckpointError if a value does not fit into its dtype, MachineError if the folder cannot be written.
    """
    kept = {tensor.name for tensor in plan.tensors if tensor.copied}
    shards = plan_shards(plan.specs, max_shard_bytes, kept=kept)
    with ShardedWriter(folder, shards) as writer:

        def write(tensor: PlannedTensor) -> None:
            if tensor.copied:
                writer.write_raw(tensor.name, base.raw_chunks(tensor.name))
            else:
                writer.write(tensor.name, merged_value(base, state, tensor, input_dtype))

        for_each_tensor(plan.tensors, write, workers=workers, on_tensor=on_tensor)
        return writer.commit()


def merged_value(
    base: Checkpoint, state: MergeState, tensor: PlannedTensor, input_dtype: torch.dtype | None
) -> torch.Tensor:
    """One tensor of the merged model after the step of `state`, in the dtype that it is planned to have.

    Raises CheckpointError if a value does not fit into that dtype.
    """
    if not tensor.merged:
        value = cast_once(base.read(tensor.name), tensor.out_dtype)
    else:
        exact = state.read(tensor.name)
        exact /= state.scale
        exact += read_float64(base, tensor.name, input_dtype)
        value = cast_once(exact, tensor.out_dtype)
    if tensor.merged and not all_finite(value):
        raise CheckpointError(
            f"merged model of step {state.step}: tensor {tensor.name!r} does not fit into {tensor.out_dtype}: "
            f"{first_not_finite(value)}",
            hint="choose a wider `out_dtype` in the recipe",
        )
    return value
