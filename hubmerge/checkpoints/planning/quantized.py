"""Detection of weights in a quantized format, as opposed to plain 8-bit floats, and of the settings of formats."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.matching.quantized_names import is_quantized_part

SETTINGS = ("quantization_config", "compression_config")
"""Keys of a config with the settings of a quantized format."""

_MLX = "quantization"


def is_quantized(checkpoint: Checkpoint, name: str) -> bool:
    """Return True if a tensor holds codes, or the scales without which codes mean nothing.

    Integers in a `.weight` are codes. 8-bit floats are codes if the config has a `quantization_config`, or if the same
    module has a tensor with "scale" in its name; otherwise they are plain numbers. Other tensors are known by names
    that only quantized formats have.
    """
    info = checkpoint.tensors[name]
    if not info.dtype.is_floating_point and name.endswith(".weight"):
        return True
    names: Collection[str] = checkpoint.tensors
    if isinstance(checkpoint, AlignedCheckpoint):
        names = checkpoint.stored_tensors
        name = checkpoint.stored_name(name)
    if is_quantized_part(name, names):
        return True
    if not info.dtype.is_floating_point or info.dtype.itemsize > 1:
        return False
    module, _, _ = name.rpartition(".")
    beside = (other.rpartition(".") for other in names if other != name)
    scaled = any(parent == module and "scale" in last for parent, _, last in beside)
    return scaled or has_settings(checkpoint.config)


def quantization_keys(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of a config under which the settings of a quantized format stand, not those of nested configs.

    >>> quantization_keys({"quantization_config": {"bits": 4}, "compression_config": None})
    ['quantization_config']
    """
    keys = [key for key in SETTINGS if config.get(key)]
    mlx = config.get(_MLX)
    return [*keys, _MLX] if isinstance(mlx, Mapping) and "bits" in mlx else keys


def has_settings(config: Mapping[str, Any]) -> bool:
    """Return True if a config, or a config nested in it, has settings of a quantized format."""
    nested = (value for value in config.values() if isinstance(value, Mapping))
    return bool(quantization_keys(config)) or any(has_settings(value) for value in nested)


def quantization_method(config: Mapping[str, Any]) -> str | None:
    """Return the method of the quantized format that a config or a config nested in it names, None if none does."""
    for key in quantization_keys(config):
        settings = config[key]
        method = settings.get("quant_method") if isinstance(settings, Mapping) else None
        if isinstance(method, str):
            return method
    nested = (quantization_method(value) for value in config.values() if isinstance(value, Mapping))
    return next((method for method in nested if method is not None), None)
