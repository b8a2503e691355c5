"""Settings of a recipe as the values that checkpoints and executor take."""

from __future__ import annotations

import torch

from hubmerge.checkpoints import Selection
from hubmerge.executor.write_model import MAX_SHARD_BYTES
from merge_recipes import Recipe


def selection_of(recipe: Recipe) -> Selection:
    """Return the rules of a recipe on tensor names."""
    return Selection(recipe.tensors.include, recipe.tensors.exclude)


def input_dtype(recipe: Recipe) -> torch.dtype | None:
    """Return the dtype to which values are rounded before the arithmetic, None for no rounding."""
    return None if recipe.dtype is None else getattr(torch, recipe.dtype)


def out_dtype(recipe: Recipe) -> torch.dtype | None:
    """Return the dtype of the written tensors, None for the dtype of each tensor in the base model."""
    name = recipe.out_dtype or recipe.dtype
    return None if name is None else getattr(torch, name)


def max_shard_bytes(recipe: Recipe) -> int:
    """Return the largest size of a weight file in bytes."""
    return recipe.publish.max_shard_bytes if recipe.publish is not None else MAX_SHARD_BYTES


def state_dtype(recipe: Recipe) -> torch.dtype:
    """Return the dtype of the states."""
    return torch.float32 if recipe.state_dtype == "float32" else torch.float64
