"""Running weighted mean with the conventions of mergekit."""

from __future__ import annotations

from hubmerge.methods.base import Absorbed, TensorInput
from hubmerge.support.lazy import torch

SMALLEST_DIVISOR = 1e-8
"""Sums of weights below this are not divided by, as in mergekit."""

SUM_OF_WEIGHTS = "weight"
"""Name of the state part, a scalar."""


def weighted_mean(tensor: TensorInput[object], values: torch.Tensor, weight: float) -> Absorbed:
    """Return the weighted mean M_t = M_{t-1} + w_t / W_t (x_t - M_{t-1}) with W_t = W_{t-1} + w_t.

    Where the sum of weights is nearly zero, the weighted sum stands in for the mean.

    Args:
        tensor: the mean so far as its accumulated delta, and W_{t-1} as its part `weight`.
        values: x_t, in the shape of the task vector.
        weight: w_t.
    """
    before = float(tensor.parts[SUM_OF_WEIGHTS])
    total = before + weight
    kept = {SUM_OF_WEIGHTS: torch.full_like(tensor.parts[SUM_OF_WEIGHTS], total)}
    if _divides(before) and _divides(total):
        return Absorbed(torch.lerp(tensor.accumulated, values, weight / total), kept)
    sums = (tensor.accumulated * (before if _divides(before) else 1.0)).add_(values, alpha=weight)
    return Absorbed(sums.div_(total) if _divides(total) else sums, kept)


def _divides(total: float) -> bool:
    return abs(total) >= SMALLEST_DIVISOR
