"""Sums of sparse task vectors: task arithmetic, TIES, DARE, DELLA and Model Breadcrumbs.

    θ = θ_0 + λ Σ w_i s(τ_i),  τ_i = θ^(i) - θ_0

s keeps some elements of a task vector and sets the others to zero. With `rescale`, what is kept is multiplied by
|τ|_1 / |s(τ)|_1, both over the whole tensor. With `normalize`, the sum is divided by Σ w_i. The TIES forms elect a sign
for each element, that of Σ w_i s(τ_i) (positive if it is zero), and sum only the terms that have it; `normalize` then
divides by the sum of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import Blocks, JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.draws import BitMasks
from hubmerge.methods.joint.masks import as_numbers, at_least, greater
from hubmerge.methods.joint.selection import EVERYTHING, Cut, Numbers, cuts
from hubmerge.methods.weighted_mean import SMALLEST_DIVISOR
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

SMALLEST_NORM = 1e-7
"""L1 norms below this are not divided by."""

Whole = PerTensor(entries=False)


class SumParameters(MethodParameters):
    """Parameters of a sum of task vectors."""

    weight: Annotated[float, PerTensor()] = Field(description="weight of a model; each model may have its own")
    normalize: Annotated[bool, Whole] = Field(False, description="divide by the sum of the weights")
    lambda_: Annotated[float, Whole] = Field(1.0, alias="lambda", description="factor of the merged task vector")
    int8_mask: bool = Field(False, description="saves memory in mergekit, no effect here")


class SparseParameters(SumParameters):
    """Parameters of a sum of sparse task vectors."""

    density: Annotated[float, PerTensor()] = Field(1.0, ge=0.0, le=1.0, description="share of elements that are kept")
    rescale: Annotated[bool, Whole] = Field(False, description="restore the L1 norm of each task vector")


@dataclass(frozen=True)
class Kept:
    """Elements of one task vector that are kept, times a factor.

    Attributes:
        low: the cut of their magnitudes below which none is kept.
        high: the cut above which none is kept, None if there is none.
        factor: the factor.
        everything: True if all are kept.
        masks: the masks of all blocks, for methods that draw them once.
    """

    low: Cut = EVERYTHING
    high: Cut | None = None
    factor: float = 1.0
    everything: bool = False
    masks: BitMasks | None = None


class TaskVectorSum(JointMethod):
    """Base of the sums. Subclasses say which elements of a task vector are kept, in `survey_model` and `mask`.

    Attributes:
        elects: elect a sign for each element, as TIES does.
    """

    blocks: Blocks = "elements"
    elects = False

    def survey(self, view: TensorView, parameters: JointParameters[Any]) -> list[Any]:
        """Return for each model what its mask depends on, and the factor that restores its norm."""
        return [self._surveyed(view, model, parameters) for model in range(view.count)]

    def _surveyed(self, view: TensorView, model: int, parameters: JointParameters[Any]) -> Kept:
        kept = self.survey_model(view, model, parameters)
        if kept.everything or not getattr(parameters.whole, "rescale", False):
            return kept
        before: list[float] = []
        after: list[float] = []
        start = 0
        for delta in view.deltas(model):
            here = replace(parameters, start=start)
            mask = self.mask(delta, model, kept, here)
            magnitudes = delta.abs_()
            before.append(float(magnitudes.to(torch.float64).sum()))
            after.append(float(magnitudes.mul_(as_numbers(mask, magnitudes)).to(torch.float64).sum()))
            start += delta.numel()
        lengths = math.fsum(before), math.fsum(after)
        factor = lengths[0] / lengths[1] if min(lengths) >= SMALLEST_NORM else 1.0
        return replace(kept, factor=factor)

    def prefers_joint(self, parameters: dict[str, Any]) -> bool:
        """Return True for `rescale`, which no stream can have."""
        return "rescale" in parameters or super().prefers_joint(parameters)

    def survey_model(self, view: TensorView, model: int, parameters: JointParameters[Any]) -> Kept:
        """Return what the mask of one model depends on."""
        return Kept(everything=True)

    def mask(self, delta: torch.Tensor, model: int, kept: Kept, parameters: JointParameters[Any]) -> torch.Tensor:
        """Return the mask of the kept elements of a block; not called if all are kept."""
        raise NotImplementedError

    def terms(
        self, base: torch.Tensor, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> Iterator[torch.Tensor]:
        """Yield the sparse task vectors of a block, each times its weight."""
        for model, (tensor, kept) in enumerate(zip(tensors, parameters.survey, strict=True)):
            delta = tensor - base
            if not kept.everything:
                delta.mul_(as_numbers(self.mask(delta, model, kept, parameters), delta))
            yield delta.mul_(kept.factor * parameters.models[model].weight)

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the base model plus the sum."""
        assert base is not None  # noqa: S101 - these methods require a base model
        weights = [model.weight for model in parameters.models]
        terms = self.terms(base, tensors, parameters)
        normalize = parameters.whole.normalize
        total = elected_sum(list(terms), weights, normalize=normalize) if self.elects else summed(terms)
        if normalize and not self.elects:
            divisor = math.fsum(weights)
            total /= divisor if abs(divisor) >= SMALLEST_DIVISOR else 1.0
        return total.mul_(parameters.whole.lambda_).add_(base)


def summed(terms: Iterator[torch.Tensor]) -> torch.Tensor:
    """Return the sum of tensors, in the memory of the first one."""
    total = next(terms)
    for term in terms:
        total += term
    return total


def elected_sum(terms: list[torch.Tensor], weights: Sequence[float], *, normalize: bool) -> torch.Tensor:
    """Return the sum of the terms that have the elected sign; with `normalize`, divided by the sum of their weights.

    The terms are changed.
    """
    total = summed(iter([terms[0].clone(), *terms[1:]]))
    sign = as_numbers(at_least(total, 0.0), total).mul_(2.0).sub_(1.0)
    total.zero_()
    divisor = torch.zeros_like(total) if normalize else None
    for term, weight in zip(terms, weights, strict=True):
        term.mul_(sign)
        if divisor is not None:
            divisor.add_(as_numbers(greater(term, 0.0), term), alpha=weight)
        total += term.clamp_(min=0.0)
    total.mul_(sign)
    return total if divisor is None else total.div_(divisor.add_(as_numbers(divisor == 0.0, divisor)))


class TaskArithmetic(TaskVectorSum):
    """Task arithmetic: θ = θ_0 + λ Σ w_i τ_i, divided by Σ w_i with `normalize`."""

    name = "task_arithmetic"
    summary = "weighted sum of the task vectors"
    source = "arXiv:2212.04089, Section 2 (addition), with weights"
    Parameters = SumParameters


class LargestElements(TaskVectorSum):
    """Base of sums that keep the int(density d) largest magnitudes of each tensor, and at least one."""

    Parameters = SparseParameters

    def survey_model(self, view: TensorView, model: int, parameters: JointParameters[SparseParameters]) -> Kept:
        """Return the cut below the elements that are kept."""
        density = parameters.models[model].density
        if density >= 1.0:
            return Kept(everything=True)
        count = max(1, int(density * view.elements)) if density > 0.0 else 0
        (low,) = cuts(magnitudes_of(view, model), [count], view.elements)
        return Kept(low)

    def mask(
        self, delta: torch.Tensor, model: int, kept: Kept, parameters: JointParameters[SparseParameters]
    ) -> torch.Tensor:
        """Return the mask of the magnitudes above the cut."""
        return kept.low.above(delta.abs(), parameters.start)


def magnitudes_of(view: TensorView, model: int) -> Numbers:
    """Return a function that gives the magnitudes of a task vector block by block."""
    return lambda: (delta.abs_() for delta in view.deltas(model))


class TiesParameters(SparseParameters):
    """Parameters of `ties`."""

    normalize: Annotated[bool, Whole] = Field(True, description="divide by the sum of the weights that agree")


class Ties(LargestElements):
    """TIES: keep the largest elements of each task vector, elect signs, average what agrees.

    θ = θ_0 + λ Σ_agreeing w_i s(τ_i) / Σ_agreeing w_i. Of equal magnitudes, the first ones are kept.
    """

    name = "ties"
    summary = "trim small changes, elect signs, average what agrees"
    source = "arXiv:2306.01708, Algorithm 1, with weights"
    Parameters = TiesParameters
    elects = True
