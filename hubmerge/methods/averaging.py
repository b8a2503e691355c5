"""Sums of the task vectors under different scales."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from hubmerge.methods.base import Absorbed, Method, MethodParameters, NoParameters, Norms, TensorInput
from hubmerge.methods.others import OTHERS, Others, ReadsOthers, adaptive_scale
from hubmerge.support.lazy import torch


class SumOfTaskVectors(Method):
    """Base of methods whose accumulated delta is the plain sum. A_t = A_{t-1} + τ_t."""

    elementwise = True
    revokes = True
    adds = True
    order_free = True

    def absorb(self, tensor: TensorInput[Any]) -> Absorbed:
        """Add the task vector."""
        return Absorbed(torch.add(tensor.accumulated, tensor.task_vector, alpha=tensor.sign))


class WeightAverage(SumOfTaskVectors):
    """Continual weight average. θ_t = θ_0 + A_t / t = ((t - 1) θ_{t-1} + θ^(t)) / t."""

    name = "weight_average"
    summary = "running mean of the checkpoints"
    source = "arXiv:2203.05482, Eq. of the uniform soup; one at a time as in arXiv:2501.09522, Section 5"

    def scale(self, norms: Norms, parameters: NoParameters) -> float:
        """Return the number of checkpoints so far."""
        return float(max(1, norms.count))


class AdaptiveScaleParameters(MethodParameters):
    """Parameters of `adaptive_scale`."""

    others: Others = Field("adaptive", description=OTHERS)


class AdaptiveScale(SumOfTaskVectors):
    """The scale of OPCM without its projection, an ablation of its paper. θ_t = θ_0 + A_t / λ_t."""

    name = "adaptive_scale"
    summary = "sum of the task vectors, scaled to their mean norm (OPCM without the projection)"
    source = "arXiv:2501.09522, Section 4 (adaptive time-varying scaling alone)"
    Parameters: type[MethodParameters] = AdaptiveScaleParameters

    def variant_for(self, parameters: AdaptiveScaleParameters) -> Method:
        """Return the variant that treats other tensors as `others` says."""
        return self if parameters.others == "adaptive" else _AdaptiveScaleWithOthers()

    def state_parameters(self, parameters: AdaptiveScaleParameters) -> Mapping[str, Any]:
        """Return all but the treatment of other tensors: the state is the sum."""
        return parameters.model_dump(mode="json", exclude={"others"})

    def scale(self, norms: Norms, parameters: AdaptiveScaleParameters) -> float:
        """Return λ_t, see `adaptive_scale`."""
        return adaptive_scale(norms)


class _AdaptiveScaleWithOthers(ReadsOthers, AdaptiveScale):
    """The scale with another treatment of other tensors; the states are equal."""
