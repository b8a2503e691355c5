"""Tensors of base model and checkpoint as the arithmetic wants them: float64, finite, on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.linalg import PIECE, cast_once, frobenius_norm, total_norm

ELEMENTS_AT_ONCE = PIECE
"""So many elements of a tensor go through several conversions in a row: few enough to stay in the cache, and for their
copies to stay below the size from which every block is a mapping of its own (`executor.parallel.allocation`)."""


def rounded_pieces(checkpoint: Checkpoint, name: str, input_dtype: torch.dtype | None) -> Iterator[torch.Tensor]:
    """The values of a tensor of a checkpoint, flat, ELEMENTS_AT_ONCE, rounded to `input_dtype` if there is one."""
    for piece in checkpoint.read_pieces(name, ELEMENTS_AT_ONCE):
        yield piece if input_dtype is None else cast_once(piece, input_dtype)


def read_task_vector(
    base: Checkpoint,
    checkpoint: Checkpoint,
    name: str,
    *,
    input_dtype: torch.dtype | None = None,
    device: torch.device,
) -> tuple[torch.Tensor, float]:
    """Checkpoint minus base model for one tensor, float64, on `device`, every element finite; and its length.

    Raises CheckpointError naming the checkpoint, the tensor and the element that is not finite.
    """
    if device.type != "cpu":
        return send_task_vector(base, checkpoint, name, input_dtype=input_dtype, device=device)
    task_vector = torch.empty(checkpoint.tensors[name].shape, dtype=torch.float64)
    lengths = []
    pieces = (rounded_pieces(owner, name, input_dtype) for owner in (checkpoint, base))
    for part, moved, start in zip(task_vector.view(-1).split(ELEMENTS_AT_ONCE), *pieces, strict=True):
        torch.sub(moved.to(torch.float64), start.to(torch.float64), out=part)
        lengths.append(frobenius_norm(part))
        if not math.isfinite(lengths[-1]) and not all_finite(part):
            raise not_finite(base, checkpoint, name, input_dtype)
    return task_vector, total_norm(lengths)


def send_task_vector(
    base: Checkpoint, checkpoint: Checkpoint, name: str, *, input_dtype: torch.dtype | None, device: torch.device
) -> tuple[torch.Tensor, float]:
    """`read_task_vector` with the arithmetic on the device, which is sent the values as they are stored.

    The length may differ from that on the CPU in the last digit.
    """
    moved, start = (
        (values if input_dtype is None else cast_once(values, input_dtype)).to(torch.float64)
        for values in (owner.read(name).to(device) for owner in (checkpoint, base))
    )
    task_vector = moved - start
    del moved, start
    length = frobenius_norm(task_vector)
    if not math.isfinite(length) and not all_finite(task_vector):
        raise not_finite(base, checkpoint, name, input_dtype)
    return task_vector, length


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite, without a copy of the tensor."""
    if tensor.numel() == 0:
        return True
    if tensor.dtype.itemsize == 1:
        # torch compares no 8-bit floats.
        tensor = tensor.to(torch.float32)
    # One pass at the speed of memory; squares of finite values may overflow, so only its yes is an answer.
    if math.isfinite(float(torch.linalg.vector_norm(tensor))):
        return True
    low, high = torch.aminmax(tensor)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def first_not_finite(tensor: torch.Tensor) -> str:
    """The first element that is NaN or infinite and how many there are, in words."""
    tensor = tensor.to(torch.float64)
    wrong = ~torch.isfinite(tensor)
    place = [int(index) for index in torch.nonzero(wrong)[0]]
    return (
        f"{int(wrong.sum())} of {tensor.numel()} values are not finite, the first is {tensor[tuple(place)]} at {place}"
    )


def not_finite(base: Checkpoint, checkpoint: Checkpoint, name: str, input_dtype: torch.dtype | None) -> CheckpointError:
    """The error about a task vector that is not finite; it says why."""
    for owner in (checkpoint, base):
        stored = owner.read(name)
        if not all_finite(stored):
            return CheckpointError(
                f"{owner.label}: tensor {name!r}: {first_not_finite(stored)}",
                hint="do not merge this checkpoint; its training or its file went wrong",
            )
        if input_dtype is not None and not all_finite(cast_once(stored, input_dtype)):
            return CheckpointError(
                f"{owner.label}: tensor {name!r} holds values that are too large for {input_dtype}",
                hint="choose a wider `dtype` in the recipe, or leave it out",
            )
    return CheckpointError(
        f"{checkpoint.label}: tensor {name!r} is further from the base model than float64 reaches",
        hint="do not merge this checkpoint; its training or its file went wrong",
    )
