"""Errors of a merge plan about tensors that cannot be merged."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.matching.components import Parts
from hubmerge.checkpoints.matching.mismatches import rule_for_all
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.planning.quantized import quantization_method
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError


def quantized_tensor(info: TensorInfo, owner: Checkpoint) -> CheckpointError:
    """Return the error for a tensor to be merged that is in a quantized format."""
    method = quantization_method(owner.config)
    named = "" if method is None else f" ({method})"
    if info.dtype.is_floating_point and info.dtype.itemsize > 1:
        cause = f"belongs to a quantized format{named}, which cannot be merged"
    else:
        dtype = str(info.dtype).removeprefix("torch.")
        cause = f"is stored as {dtype}, in a quantized format{named} that cannot be merged"
    return owner.origin.error(
        f"tensor {info.name!r} {cause}",
        hint="merge an unquantized version of this model",
        tensor=info.name,
    )


def missing_component(
    name: str,
    base: Checkpoint,
    checkpoints: Sequence[AlignedCheckpoint],
    having: Sequence[AlignedCheckpoint],
    selection: Selection,
    parts: Parts,
) -> CheckpointError:
    """Return the error for a component of the base model that only the checkpoints `having` have."""
    lacking = next(checkpoint for checkpoint in checkpoints if checkpoint not in having)
    component = parts.component_of(name)
    if name in lacking.alignment.heads:
        cause = f"{component} has another shape than in the base model and in {having[0].label}"
    else:
        cause = f"{component} is missing, which {having[0].label} has"
    return lacking.origin.error(
        f"{cause} (for example {name!r})",
        hint=f"keep the base model's: {rule_for_all(list(base.tensors), checkpoints, selection)}",
        tensor=name,
    )
