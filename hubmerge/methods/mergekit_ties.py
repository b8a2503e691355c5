"""TIES as mergekit computes it, all task vectors together, as a fold over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hubmerge.linalg import PIECE
from hubmerge.methods.base import MethodParameters, PartedTensor
from hubmerge.methods.folding import PartedFold
from hubmerge.support.lazy import torch

PARTS = ("positive", "negative", "positive_weight", "negative_weight")


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
        return dict.fromkeys(PARTS, shape)

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
        merged = largest_elements(task_vector, 1.0 if parameters.density is None else parameters.density)
        flat = (merged.view(-1), *(parts[name].view(-1) for name in PARTS))
        # A few elements at a time, in place: what is done with them stays in the cache.
        for result, positive, negative, positive_weight, negative_weight in zip(
            *(values.split(PIECE) for values in flat), strict=True
        ):
            term = weight * result
            positive += term.clamp(min=0.0)
            negative += term.clamp(max=0.0)
            positive_weight += weight * (term > 0.0).to(term.dtype)
            negative_weight += weight * (term < 0.0).to(term.dtype)
            up = positive + negative >= 0.0
            torch.where(up, positive, negative, out=result)
            if parameters.normalize:
                weights = torch.where(up, positive_weight, negative_weight)
                result /= torch.where(weights == 0.0, 1.0, weights)
            result *= parameters.lambda_
        return PartedTensor(merged, parts)


def largest_elements(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """A copy of `tensor`, all but its int(density d) largest magnitudes of d set to zero, but never all of them.

    Of equal magnitudes the first ones stay.
    """
    result = tensor.clone(memory_format=torch.contiguous_format)
    count = result.numel()
    kept = max(1, int(density * count))
    if kept >= count:
        return result
    threshold, equal = _threshold(result, kept)
    for piece in result.view(-1).split(PIECE):
        magnitudes = piece.abs()
        dropped = magnitudes < threshold
        ties = torch.nonzero(magnitudes == threshold).view(-1)
        dropped[ties[equal:]] = True
        equal -= min(equal, ties.numel())
        piece.masked_fill_(dropped, 0.0)
    return result


def _threshold(tensor: torch.Tensor, kept: int) -> tuple[float, int]:
    """The smallest magnitude that is kept, and how many of that magnitude are."""
    magnitudes = tensor.abs().view(-1)
    place = magnitudes.numel() - kept
    if magnitudes.device.type != "cpu":
        threshold = float(torch.kthvalue(magnitudes, place + 1).values)
        return threshold, kept - int((magnitudes > threshold).sum())
    # NumPy's selection works in place and several times as fast.
    magnitudes.numpy().partition(place)
    threshold = float(magnitudes[place])
    return threshold, kept - int((magnitudes[place:] > threshold).sum())
