"""Telling weights in a quantized format, which mean nothing without their scales, from plain 8-bit floats."""

from __future__ import annotations

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint


def is_quantized(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor holds codes and not values.

    Whole numbers in a `.weight` are codes. An 8-bit float is one if the config speaks of quantization or if a
    tensor with "scale" in its name lies beside it; otherwise it is a number like any other.
    """
    info = checkpoint.tensors[name]
    if not info.dtype.is_floating_point:
        return name.endswith(".weight")
    if info.dtype.itemsize > 1:
        return False
    names = set(checkpoint.tensors)
    if isinstance(checkpoint, AlignedCheckpoint):
        names = checkpoint.stored_tensors
        name = checkpoint.stored_name(name)
    module, _, _ = name.rpartition(".")
    beside = (other.rpartition(".") for other in names if other != name)
    scaled = any(parent == module and "scale" in last for parent, _, last in beside)
    return scaled or "quantization_config" in checkpoint.config
