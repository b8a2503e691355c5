"""State parts: names and shapes of what a method saves besides the accumulated delta."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.methods import Method


def saved_name(method: Method) -> str:
    """Return the name of a method in its states."""
    return method.state_name or method.name


AVERAGE = "average"
"""Action of statistics."""

SUM_OF_WEIGHTS = "statistic_weight"
"""Name of the state part of a statistic: the sum of the weights so far, a scalar."""


def state_parts(method: Method, tensor: PlannedTensor) -> Mapping[str, tuple[int, ...]]:
    """Return names and shapes of the state parts of a tensor; those of several experts have a leading dimension."""
    if tensor.action == AVERAGE:
        return {SUM_OF_WEIGHTS: ()}
    if tensor.action != "merge-matrix" or not method.has_matrix_form:
        return method.state_parts(tensor.shape)
    *experts, rows, columns = tensor.shape
    return {name: (*experts, *shape) for name, shape in method.matrix_parts((rows, columns)).items()}


def part_dtypes(method: Method, tensor: PlannedTensor, dtype: torch.dtype) -> Mapping[str, torch.dtype]:
    """Return the dtype of each state part of a tensor: that of the state, float64 for single numbers."""
    if tensor.action == AVERAGE:
        return {SUM_OF_WEIGHTS: torch.float64}
    if tensor.action != "merge-matrix" or not method.has_matrix_form:
        shapes = method.state_parts(tensor.shape)
    else:
        shapes = method.matrix_parts((tensor.shape[-2], tensor.shape[-1]))
    return {name: dtype if shape else torch.float64 for name, shape in shapes.items()}


def rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return float64 values as a state of a dtype has them: rounded once, in float64 again."""
    return values if dtype == torch.float64 else values.to(dtype).to(torch.float64)


def part_key(part: str, name: str) -> str:
    """Return the key in the state of a method's state part for a tensor."""
    return f"{part}/{name}"
