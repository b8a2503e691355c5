"""State parts: names and shapes of what a method saves besides the accumulated delta."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.linalg import PIECE
from hubmerge.methods import Method

AVERAGE = "average"
"""Action of statistics."""

SUM_OF_WEIGHTS = "statistic_weight"
"""Name of the state part of a statistic: the sum of the weights so far, a scalar."""


def is_turned(method: Method, tensor: PlannedTensor) -> bool:
    """Return True if the method needs the weight matrices of a tensor transposed, to have (outputs, inputs)."""
    return method.inputs_last and tensor.transposed and tensor.action == "merge-matrix"


def state_parts(method: Method, tensor: PlannedTensor) -> Mapping[str, tuple[int, ...]]:
    """Return names and shapes of the state parts of a tensor; those of several experts have a leading dimension."""
    if tensor.action == AVERAGE:
        return {SUM_OF_WEIGHTS: ()}
    if tensor.action != "merge-matrix" or not method.has_matrix_form:
        return method.state_parts(tensor.shape)
    experts = tensor.shape[:-2]
    return {name: (*experts, *shape) for name, shape in _matrix_parts(method, tensor).items()}


def part_dtypes(method: Method, tensor: PlannedTensor, dtype: torch.dtype) -> Mapping[str, torch.dtype]:
    """Return the dtype of each state part of a tensor: that of the state, float64 for single numbers."""
    if tensor.action == AVERAGE:
        return {SUM_OF_WEIGHTS: torch.float64}
    if tensor.action != "merge-matrix" or not method.has_matrix_form:
        shapes = method.state_parts(tensor.shape)
    else:
        shapes = _matrix_parts(method, tensor)
    return {name: dtype if shape else torch.float64 for name, shape in shapes.items()}


def _matrix_parts(method: Method, tensor: PlannedTensor) -> Mapping[str, tuple[int, ...]]:
    """Return names and shapes of the state parts of one weight matrix, as the method sees it."""
    rows, columns = tensor.shape[-2:]
    return method.matrix_parts((columns, rows) if is_turned(method, tensor) else (rows, columns))


def rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return float64 values as a state of a dtype has them: rounded once, in float64 again."""
    return values if dtype == torch.float64 else values.to(dtype).to(torch.float64)


def round_own(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `rounded` of a tensor that nobody else needs, in its own memory if it has the order of C."""
    if dtype == torch.float64 or not values.is_contiguous():
        return rounded(values, dtype)
    for piece in values.view(-1).split(PIECE if values.device.type == "cpu" else max(1, values.numel())):
        piece.copy_(piece.to(dtype))
    return values


def part_key(part: str, name: str) -> str:
    """Return the key in the state of a method's state part for a tensor."""
    return f"{part}/{name}"
