"""Detection of weights in a quantized format, as opposed to plain 8-bit floats."""

from __future__ import annotations

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint


def is_quantized(checkpoint: Checkpoint, name: str) -> bool:
    """Return True if a tensor holds codes that mean nothing without their scales.

    Integers in a `.weight` are codes. 8-bit floats are codes if the config has a `quantization_config`, or if the same
    module has a tensor with "scale" in its name; otherwise they are plain numbers.
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
