"""TIES as mergekit computes it: all task vectors together, as a fold over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from hubmerge.linalg import PIECE
from hubmerge.methods.base import Absorbed, Method, MethodParameters, TensorInput
from hubmerge.methods.task_arithmetic import check_one_form
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

PARTS = ("positive", "negative", "positive_weight", "negative_weight")


class TiesParameters(MethodParameters):
    """Parameters of `ties`: `density` and `scaling`, or mergekit's `weight`, `normalize` and `lambda`."""

    density: Annotated[float | None, PerTensor()] = Field(
        None,
        ge=0.0,
        le=1.0,
        description="share of elements kept, the largest ones; default 0.2, in mergekit's form 1; 0 in this form only",
    )
    scaling: Annotated[float, PerTensor()] = Field(
        0.3, description="factor of each merged task vector before it is added"
    )
    weight: Annotated[float | None, PerTensor()] = Field(
        None, description="mergekit's form: weight of an entry; each entry may have its own"
    )
    normalize: bool = Field(True, description="mergekit's form: divide by the sum of the weights that agree")
    lambda_: float = Field(1.0, alias="lambda", description="mergekit's form: factor of the merged task vector")
    int8_mask: bool = Field(False, description="mergekit's form: saves memory in mergekit, no effect here")

    @model_validator(mode="after")
    def _one_form(self) -> TiesParameters:
        check_one_form(self.model_fields_set, self.weight, {"scaling"}, {"normalize", "lambda_", "int8_mask"})
        if self.density == 0.0 and self.weight is None:
            raise ValueError("a density of 0 keeps nothing: expected one above 0")
        return self


class MergekitTies(Method):
    """θ_t = θ_0 + λ Σ_agreeing w_i x_i / Σ_agreeing w_i, element by element.

    x_i is τ_i with all but the largest int(density d) of the tensor's d elements set to zero (of equal magnitudes the
    first ones are kept). The sign of an element is that of Σ w_i x_i, positive if that is zero; agreeing are those i
    whose w_i x_i has that sign. The sums over the positive and the negative terms, and the sums of their weights, are
    saved separately, so no term is needed twice.
    """

    name = "ties"
    summary = "trim small changes, elect signs, average what agrees"
    source = "arXiv:2306.01708, Algorithm 1, in the form of mergekit 0.1 `ties`"
    Parameters = TiesParameters

    def state_parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return the sums of the positive and of the negative terms, and of the weights of each."""
        return dict.fromkeys(PARTS, shape)

    def absorb(self, tensor: TensorInput[TiesParameters]) -> Absorbed:
        """Add the terms to the sums of their sign, and elect the sign again."""
        parameters = tensor.parameters
        weight = parameters.weight or 0.0
        merged = largest_elements(tensor.task_vector, 1.0 if parameters.density is None else parameters.density)
        flat = (merged.view(-1), *(tensor.parts[name].view(-1) for name in PARTS))
        # A few elements at a time, in place: the intermediate values stay in the cache.
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
        return Absorbed(merged, tensor.parts)


def largest_elements(tensor: torch.Tensor, density: float) -> torch.Tensor:
    """Return a copy of `tensor` with all but its int(density d) largest magnitudes of d set to zero.

    At least one element is kept, with a density of 0 none. Of equal magnitudes the first ones are kept.
    """
    result = tensor.clone(memory_format=torch.contiguous_format)
    if density == 0.0:
        return result.zero_()
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
    """Return the smallest magnitude that is kept, and how many elements of that magnitude are kept."""
    magnitudes = tensor.abs().view(-1)
    place = magnitudes.numel() - kept
    if magnitudes.device.type != "cpu":
        threshold = float(torch.kthvalue(magnitudes, place + 1).values)
        return threshold, kept - int((magnitudes > threshold).sum())
    # NumPy selects in place, several times as fast.
    magnitudes.numpy().partition(place)
    threshold = float(magnitudes[place])
    return threshold, kept - int((magnitudes[place:] > threshold).sum())
