"""TIES as mergekit computes it, all task vectors together, as a fold over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from hubmerge.methods.base import MethodParameters, PartedTensor
from hubmerge.methods.folding import PartedFold


class WeightedTiesParameters(Protocol):
    """What this form needs of its parameters."""

    @property
    def weight(self) -> float | None:
        """Weight of the entry."""

    @property
    def density(self) -> float | None:
        """Share of the elements of a tensor that is kept; None for all."""

    @property
    def normalize(self) -> bool:
        """Whether to divide by the weights that agree."""

    @property
    def lambda_(self) -> float:
        """What the merged task vector is multiplied with."""


class MergekitTies(PartedFold):
    """θ_t = θ_0 + λ Σ_agreeing w_i x_i / Σ_agreeing w_i, element by element.

    x_i is τ_i with all but the largest int(density d) of the tensor's d elements set to zero (of equals the first
    ones stay). The sign of an element is that of Σ w_i x_i, positive if that is zero; agreeing are those i whose
    w_i x_i has that sign. The sums over the positive and over the negative terms, and of their weights, are kept
    apart, so no term is needed twice.
    """

    name = "ties"
    source = "arXiv:2306.01708, Algorithm 1, in the form of mergekit 0.1 `ties`"

    def __init__(self, parameters_class: type[MethodParameters]) -> None:
        self.Parameters = parameters_class

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Sums of the positive and of the negative terms, and of the weights of either."""
        return dict.fromkeys(("positive", "negative", "positive_weight", "negative_weight"), shape)

    def absorb_parts(
        self,
        accumulated: torch.Tensor,
        parts: Mapping[str, torch.Tensor],
        task_vector: torch.Tensor,
        parameters: WeightedTiesParameters,
        *,
        step: int,
    ) -> PartedTensor:
        """Sort the terms by sign, and elect the sign anew."""
        weight = parameters.weight or 0.0
        term = weight * largest_elements(task_vector, 1.0 if parameters.density is None else parameters.density)
        new = {
            "positive": parts["positive"] + term.clamp(min=0.0),
            "negative": parts["negative"] + term.clamp(max=0.0),
            "positive_weight": parts["positive_weight"] + weight * (term > 0.0).to(term.dtype),
            "negative_weight": parts["negative_weight"] + weight * (term < 0.0).to(term.dtype),
        }
        positive = new["positive"] + new["negative"] >= 0.0
        merged = torch.where(positive, new["positive"], new["negative"])
        if parameters.normalize:
            weights = torch.where(positive, new["positive_weight"], new["negative_weight"])
            merged = merged / torch.where(weights == 0.0, 1.0, weights)
        return PartedTensor(parameters.lambda_ * merged, new)


def largest_elements(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """`tensor` with all but its int(density d) largest magnitudes of d set to zero, but never all of them."""
    count = tensor.numel()
    kept = max(1, int(density * count))
    if kept >= count:
        return tensor
    magnitudes = tensor.abs().reshape(-1)
    threshold = torch.kthvalue(magnitudes, count - kept + 1).values
    chosen = magnitudes > threshold
    equal = torch.nonzero(magnitudes == threshold).reshape(-1)
    chosen[equal[: kept - int(chosen.sum())]] = True
    return torch.where(chosen.reshape(tensor.shape), tensor, 0.0)
