"""Tensors of base model and checkpoint for the arithmetic: float64, finite, on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import CheckpointError
from hubmerge.executor.parallel.context import DEFAULT_CONTEXT, ExecutorContext
from hubmerge.linalg import PIECE, cast_once, frobenius_norm, total_norm

_DIVERGED = "do not merge this checkpoint; training probably diverged, or the file is corrupt"

_EXPONENTS = {torch.bfloat16: 0x7F80, torch.float16: 0x7C00}
"""Bits of infinity in dtypes of 16 bits."""

ELEMENTS_AT_ONCE = PIECE
"""Elements of a tensor that go through several conversions in a row: few enough to stay in the cache, and their copies
stay below the size from which every block gets its own mapping (see `executor.parallel.allocation`)."""


def rounded_pieces(checkpoint: Checkpoint, name: str, input_dtype: torch.dtype | None) -> Iterator[torch.Tensor]:
    """Yield the values of a tensor, flat, ELEMENTS_AT_ONCE each, rounded to `input_dtype` if there is one."""
    for piece in checkpoint.read_pieces(name, ELEMENTS_AT_ONCE):
        yield piece if input_dtype is None else cast_once(piece, input_dtype)


def read_task_vector(
    base: Checkpoint, checkpoint: Checkpoint, name: str, *, context: ExecutorContext = DEFAULT_CONTEXT
) -> tuple[torch.Tensor, float]:
    """Return checkpoint minus base model for one tensor, float64, on the device of the context, and its norm.

    Raises:
        CheckpointError: a value is not finite; the message names the checkpoint, the tensor and the element.
    """
    input_dtype, device = context.input_dtype, context.device
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
    """Return a copy with the arithmetic on the device, which receives the values in their stored dtype.

    The norm may differ from that on the CPU in the last digit.
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
    """Return True if no element is NaN or infinite, without copying the tensor."""
    if tensor.numel() == 0:
        return True
    exponent = _EXPONENTS.get(tensor.dtype)
    if exponent is not None and tensor.device.type == "cpu":
        # As integers, values that are not finite are the largest ones of their sign.
        bits = tensor.view(torch.int16).numpy()
        return int(bits.max()) < exponent and int(bits.view(np.uint16).max()) < 1 << 15 | exponent
    if tensor.dtype.itemsize == 1:
        # torch cannot compare 8-bit floats.
        tensor = tensor.to(torch.float32)
    # One pass at the speed of memory. Squares of finite values may overflow, so only a finite norm is an answer.
    if math.isfinite(float(torch.linalg.vector_norm(tensor))):
        return True
    low, high = torch.aminmax(tensor)
    return math.isfinite(float(low)) and math.isfinite(float(high))


def first_not_finite(tensor: torch.Tensor) -> str:
    """Return a text with the first element that is NaN or infinite, and how many there are."""
    tensor = tensor.to(torch.float64)
    wrong = ~torch.isfinite(tensor)
    place = [int(index) for index in torch.nonzero(wrong)[0]]
    return (
        f"{int(wrong.sum())} of {tensor.numel()} values are not finite, the first is {tensor[tuple(place)]} at {place}"
    )


def not_finite(base: Checkpoint, checkpoint: Checkpoint, name: str, input_dtype: torch.dtype | None) -> CheckpointError:
    """Return the error about a task vector that is not finite, with the cause."""
    for owner in (checkpoint, base):
        stored = owner.read(name)
        if not all_finite(stored):
            return CheckpointError(
                f"{owner.label}: tensor {name!r}: {first_not_finite(stored)}",
                hint=_DIVERGED if all_finite(base.read(name)) else f"{_in_base(base)}: {_exclude(name)}",
                tensor=name,
            )
        if input_dtype is not None and not all_finite(cast_once(stored, input_dtype)):
            return CheckpointError(
                f"{owner.label}: tensor {name!r} has values that are too large for {input_dtype}",
                hint="choose a wider `dtype` in the recipe, or leave it out",
            )
    return CheckpointError(
        f"{checkpoint.label}: tensor {name!r} minus the base model overflows float64",
        hint=_DIVERGED,
    )


def _in_base(base: Checkpoint) -> str:
    return f"the base model {base.label} has such values as well; if they are meant, as in a mask, keep them"


def _exclude(name: str) -> str:
    return f'tensors: {{exclude: ["{name}"]}}'
