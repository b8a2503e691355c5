"""mergekit's ways of combining all task vectors at once, as folds that take one after another."""

from __future__ import annotations

from collections.abc import Mapping

from hubmerge.methods.base import Absorbed, MethodParameters, Norms, PartedTensor, not_without
from hubmerge.support.lazy import torch

SMALLEST_DIVISOR = 1e-8
"""Weights whose sum is smaller than this are not divided by, as in mergekit."""


class PartedFold:
    """What folds with parts have in common: the accumulated delta is the merged delta, and its scale is 1."""

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: MethodParameters, *, step: int
    ) -> Absorbed:
        """Not called: `absorb_parts` is."""
        raise not_without("absorb_parts()")

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: MethodParameters, *, step: int
    ) -> torch.Tensor:
        """Not called: `absorb_parts` is."""
        raise not_without("absorb_parts()")

    def scale(self, norms: Norms, parameters: MethodParameters) -> float:
        """Nothing is left to divide by."""
        return 1.0


def weighted_mean(
    mean: torch.Tensor, parts: Mapping[str, torch.Tensor], values: torch.Tensor, weight: float
) -> PartedTensor:
    """The weighted mean M_t = M_{t-1} + w_t / W_t (x_t - M_{t-1}) with W_t = W_{t-1} + w_t, which is the part "weight".

    Where a sum of weights is next to nothing the weighted sum stands for the mean.
    """
    before = float(parts["weight"])
    total = before + weight
    kept = {"weight": torch.full_like(parts["weight"], total)}
    if _divides(before) and _divides(total):
        return PartedTensor(torch.lerp(mean, values, weight / total), kept)
    sums = (mean * (before if _divides(before) else 1.0)).add_(values, alpha=weight)
    return PartedTensor(sums.div_(total) if _divides(total) else sums, kept)


def _divides(total: float) -> bool:
    return abs(total) >= SMALLEST_DIVISOR
