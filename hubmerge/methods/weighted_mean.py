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


def mean_of_both(one: Absorbed, other: Absorbed) -> Absorbed:
    """Return the weighted mean of two streams, each with its mean and its sum of weights, in the convention above."""
    totals = [float(each.parts[SUM_OF_WEIGHTS]) for each in (one, other)]
    total = sum(totals)
    kept = {SUM_OF_WEIGHTS: torch.full_like(one.parts[SUM_OF_WEIGHTS], total)}
    if all(map(_divides, (*totals, total))):
        return Absorbed(torch.lerp(one.accumulated, other.accumulated, totals[1] / total), kept)
    sums = [
        each.accumulated * (weight if _divides(weight) else 1.0)
        for each, weight in zip((one, other), totals, strict=True)
    ]
    added = sums[0].add_(sums[1])
    return Absorbed(added.div_(total) if _divides(total) else added, kept)


def _divides(total: float) -> bool:
    return abs(total) >= SMALLEST_DIVISOR
