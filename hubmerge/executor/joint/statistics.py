"""Statistics in a joint merge, such as the variance of batch normalization: their weighted mean over the models."""

from __future__ import annotations

import torch

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.joint.inputs import JointMerge
from hubmerge.executor.reading import all_finite, first_not_finite
from hubmerge.linalg import cast_once


def averaged(joint: JointMerge, tensor: PlannedTensor, input_dtype: torch.dtype | None) -> torch.Tensor:
    """Return the weighted mean of a statistic in float64.

    Models with a weight of 0 or less have no part; without any other, the value is that of the base model.

    Raises:
        CheckpointError: a value is not finite, or negative where it must not be.
    """
    base = _values(joint.base, tensor, input_dtype)
    mean, total = base, 0.0
    for model in joint.models:
        values = _values(model.checkpoint, tensor, input_dtype)
        if not all_finite(torch.where(base.isinf() & (values == base), 0.0, values)):
            raise CheckpointError(
                f"{model.checkpoint.label}: tensor {tensor.name!r}: {first_not_finite(values)}",
                hint="do not merge this model; training probably diverged, or the file is corrupt",
                tensor=tensor.name,
            )
        if tensor.never_negative and bool((values < 0.0).any()):
            raise CheckpointError(
                f"{model.checkpoint.label}: tensor {tensor.name!r} has a negative value, expected none below 0",
                hint="do not merge this model; training probably diverged, or the file is corrupt",
                tensor=tensor.name,
            )
        weight = joint.method.statistic_weight(model.parameters_for(tensor.name))
        if weight > 0.0:
            total += weight
            share = weight / total
            mean = values if share == 1.0 else torch.where(base.isinf(), base, torch.lerp(mean, values, share))
    return mean


def _values(checkpoint: Checkpoint, tensor: PlannedTensor, input_dtype: torch.dtype | None) -> torch.Tensor:
    stored = checkpoint.read(tensor.name)
    return (stored if input_dtype is None else cast_once(stored, input_dtype)).to(torch.float64)
