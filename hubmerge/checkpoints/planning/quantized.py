"""Detection of weights in a quantized format, as opposed to plain 8-bit floats, and of the settings of formats."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.matching.quantized_names import SCALED_MARK, is_quantized_part

SETTINGS = ("quantization_config", "compression_config")
"""Keys of a config with the settings of a quantized format."""

_MLX = "quantization"
_WEIGHT = re.compile(r"(?:^|[._])weight$")
_NO_CODES = re.compile(r"(?:mask|bias|ids|index)$")
"""Ends of names of masks and tables, which are integers as well."""

_CODES = (torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32)
"""Dtypes of integers that stand for numbers, several of them where they are packed."""


def is_quantized(checkpoint: Checkpoint, name: str) -> bool:
    """Return True if a tensor holds codes, or the scales without which codes mean nothing.

    Integers in a weight are codes, and so are those of two or more dimensions beside a scale. 8-bit floats are codes if
    the config has a `quantization_config`, if the same module has a tensor with "scale" in its name, or if the files
    say so; otherwise they are plain numbers. Other tensors are known by names that only quantized formats have.
    """
    info = checkpoint.tensors[name]
    if not info.dtype.is_floating_point and _WEIGHT.search(name):
        return True
    names: Collection[str] = checkpoint.tensors
    if isinstance(checkpoint, AlignedCheckpoint):
        names = checkpoint.stored_tensors
        name = checkpoint.stored_name(name)
    if is_quantized_part(name, names):
        return True
    if info.dtype.is_floating_point:
        small = info.dtype.itemsize == 1
        return small and (_is_scaled(name, names) or has_settings(checkpoint.config) or SCALED_MARK in names)
    codes = len(info.shape) > 1 and info.dtype in _CODES and not _NO_CODES.search(name)
    return codes and _is_scaled(name, names)


def _is_scaled(name: str, names: Collection[str]) -> bool:
    """Return True if the module of a tensor has a tensor with "scale" in its name."""
    module, _, _ = name.rpartition(".")
    beside = (other.rpartition(".") for other in names if other != name)
    return any(parent == module and "scale" in last for parent, _, last in beside)


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
