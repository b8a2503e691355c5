"""Methods that treat each element alone: NearSwap, RAM, SCE and a copy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.masks import as_numbers, at_least, choose, counted, greater
from hubmerge.methods.joint.selection import EVERYTHING, Cut, cuts
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

Whole = PerTensor(entries=False)


def task_vectors(base: torch.Tensor | None, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the task vectors of all models, stacked."""
    assert base is not None  # noqa: S101 - methods with task vectors require a base model
    deltas = base.new_empty((len(tensors), *base.shape))
    for delta, tensor in zip(deltas, tensors, strict=True):
        torch.sub(tensor, base, out=delta)
    return deltas


class NearswapParameters(MethodParameters):
    """Parameters of `nearswap`."""

    t: Annotated[float, Whole] = Field(description="difference up to which a value is taken from the other model")


class Nearswap(JointMethod):
    """NearSwap. θ = w θ^(1) + (1 - w) θ_0 with w = min(1, t / |θ_0 - θ^(1)|) for each element.

    Values that are close are taken from the other model, distant ones move by t.
    """

    name = "nearswap"
    summary = "the other model's values where they are close to the base model's"
    source = "huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001"
    Parameters = NearswapParameters
    blocks = "elements"
    most = 1

    SMALLEST = 1e-6

    def merge(
        self,
        base: torch.Tensor | None,
        tensors: Sequence[torch.Tensor],
        parameters: JointParameters[NearswapParameters],
    ) -> torch.Tensor:
        """Return the interpolated values."""
        assert base is not None  # noqa: S101 - the method requires a base model
        share = (parameters.whole.t / (base - tensors[0]).abs_().clamp_(min=self.SMALLEST)).clamp_(0.0, 1.0)
        return share * tensors[0] + (1.0 - share) * base


class PassthroughParameters(MethodParameters):
    """Parameters of `passthrough`."""

    scale: Annotated[float | None, PerTensor()] = Field(None, description="factor of the tensor; none changes nothing")


class Passthrough(JointMethod):
    """One model unchanged, or times a factor: θ = scale θ^(1)."""

    name = "passthrough"
    summary = "one model unchanged, or tensors of it times a factor"
    source = "by definition"
    Parameters = PassthroughParameters
    base = "model"
    blocks = "elements"
    most = 1

    def merge(
        self,
        base: torch.Tensor | None,
        tensors: Sequence[torch.Tensor],
        parameters: JointParameters[PassthroughParameters],
    ) -> torch.Tensor:
        """Return the values."""
        scale = parameters.models[0].scale
        return tensors[0] if scale is None else tensors[0] * scale


class RamParameters(MethodParameters):
    """Parameters of `ram`."""

    epsilon: Annotated[float, Whole] = Field(1e-5, ge=0.0, description="magnitude up to which a change is no change")


class Ram(JointMethod):
    """Reinforced Agent Merging. θ = θ_0 + Σ_{i changed} τ_i / c for each element.

    A model changed an element if |τ_i| > ε; c is the number of models that did. So a change of one model is kept
    whole, and shared changes are averaged.
    """

    name = "ram"
    summary = "changes of one model kept whole, shared changes averaged"
    source = "arXiv:2601.13572, Section 4 (RAM)"
    Parameters = RamParameters
    blocks = "elements"

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the base model plus the changes; the survey, if there is one, has a factor for each model alone."""
        assert base is not None  # noqa: S101 - the method requires a base model
        deltas = task_vectors(base, tensors)
        changed = as_numbers(greater(deltas.abs(), parameters.whole.epsilon), deltas)
        count = changed.sum(0)
        deltas *= changed
        result = deltas.sum(0).div_(count.clamp(min=1))
        if parameters.survey is not None:
            factors = torch.tensor(parameters.survey, dtype=deltas.dtype, device=deltas.device)
            alone = (deltas * factors.view(-1, *[1] * (deltas.dim() - 1))).sum(0)
            result = choose(count == 1.0, alone, result)
        return result.add_(base)


class RamplusParameters(RamParameters):
    """Parameters of `ramplus_tl`."""

    r: Annotated[float, Whole] = Field(0.1, description="strength of the factor of changes of one model")
    alpha: Annotated[float, Whole] = Field(0.2, ge=0.0, description="largest ratio that counts")


class RamplusTl(Ram):
    """RAM+ with factors for each tensor. Changes of one model alone are multiplied by 1 + r min(ρ_i, α).

    ρ_i is the number of changes that model i shares with others over the number of those that it has alone.
    """

    name = "ramplus_tl"
    summary = "RAM with the changes of one model strengthened, tensor by tensor"
    source = "arXiv:2601.13572, Section 4 (RAM+), with ρ for each tensor"
    Parameters = RamplusParameters

    def survey(self, view: TensorView, parameters: JointParameters[RamplusParameters]) -> list[float]:
        """Return the factor of each model."""
        shared, alone = ([0] * view.count for _ in range(2))
        for base, tensors in view.blocks():
            changed = greater(task_vectors(base, tensors).abs_(), parameters.whole.epsilon)
            several = greater(as_numbers(changed, tensors[0]).sum(0), 1.0)
            for model, mask in enumerate(changed):
                both = counted(mask & several)
                shared[model] += both
                alone[model] += counted(mask) - both
        ratios = [
            both / max(float(own), parameters.whole.epsilon) if both else 0.0
            for both, own in zip(shared, alone, strict=True)
        ]
        return [1.0 + parameters.whole.r * min(max(ratio, 0.0), parameters.whole.alpha) for ratio in ratios]


class SceParameters(MethodParameters):
    """Parameters of `sce`."""

    select_topk: Annotated[float, Whole] = Field(
        1.0, ge=0.0, le=1.0, description="share of elements kept, those whose changes vary most between models"
    )
    int8_mask: bool = Field(False, description="saves memory in mergekit, no effect here")


@dataclass(frozen=True)
class _Selected:
    """Cut of the variances of the kept elements, and the weight of each model."""

    cut: Cut
    weights: Sequence[float]


class Sce(JointMethod):
    """SCE: select elements by the variance of their changes, weigh models by their energy, erase minority signs.

    θ = θ_0 + Σ_agreeing v_i τ_i / Σ_agreeing v_i. Kept are the int(select_topk n) elements of largest variance among
    the n with any; v_i is the share of Σ τ_i² of what is kept. Agreeing are the models whose τ_i has the sign of
    Σ τ_i, positive if that is zero.
    """

    name = "sce"
    summary = "select by variance, weigh by energy, erase minority signs"
    source = "arXiv:2408.07990, Section 3.2"
    Parameters = SceParameters
    blocks = "elements"

    SMALLEST = 1e-6

    def survey(self, view: TensorView, parameters: JointParameters[SceParameters]) -> _Selected:
        """Return the cut, and the weights."""
        cut = self._cut(view, parameters.whole.select_topk)
        energies, start = [0.0] * view.count, 0
        for base, tensors in view.blocks():
            deltas = _selected(task_vectors(base, tensors), cut, start)
            start += deltas[0].numel()
            for model, delta in enumerate(deltas):
                energies[model] += float(delta.square().to(torch.float64).sum())
        total = math.fsum(energies)
        uniform = total / max(view.elements, 1) < self.SMALLEST
        return _Selected(cut, [1.0 / view.count if uniform else energy / total for energy in energies])

    def _cut(self, view: TensorView, share: float) -> Cut:
        if share >= 1.0:
            return EVERYTHING

        def variances() -> Iterator[torch.Tensor]:
            return (variance(task_vectors(*block)) for block in view.blocks())

        (cut,) = cuts(variances, lambda varying: int(varying * share), view.elements)
        return cut

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[SceParameters]
    ) -> torch.Tensor:
        """Return the base model plus the weighted mean of what agrees."""
        assert base is not None  # noqa: S101 - the method requires a base model
        selected: _Selected = parameters.survey
        deltas = _selected(task_vectors(base, tensors), selected.cut, parameters.start)
        total = deltas.sum(0)
        sign = as_numbers(at_least(total, 0.0), total).mul_(2.0).sub_(1.0)
        total.zero_()
        divisor = torch.zeros_like(total)
        for delta, weight in zip(deltas, selected.weights, strict=True):
            delta.mul_(sign)
            divisor.add_(as_numbers(greater(delta, 0.0), delta), alpha=weight)
            total.add_(delta.clamp_(min=0.0), alpha=weight)
        total.mul_(sign)
        return total.div_(divisor.clamp_(min=self.SMALLEST)).add_(base)


def variance(deltas: torch.Tensor) -> torch.Tensor:
    """Return the variance of each element over the first dimension; it is exactly 0 where all values are equal.

    Over a dimension of a few models this takes a small part of the time of `torch.var`.
    """
    first = deltas[0]
    mean = torch.zeros_like(first)
    for delta in deltas[1:]:
        mean += delta - first
    mean /= len(deltas)
    total = mean.square()
    for delta in deltas[1:]:
        distance = (delta - first).sub_(mean)
        total.addcmul_(distance, distance)
    return total.div_(len(deltas))


def _selected(deltas: torch.Tensor, cut: Cut, start: int) -> torch.Tensor:
    if cut is not EVERYTHING:
        deltas *= as_numbers(cut.above(variance(deltas), start), deltas)
    return deltas
