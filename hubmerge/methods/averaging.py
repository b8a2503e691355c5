"""Sums of the task vectors under different scales."""

from __future__ import annotations

from hubmerge.methods.base import Absorbed, Method, NoParameters, Norms, TensorInput


class SumOfTaskVectors(Method):
    """Base of methods whose accumulated delta is the plain sum. A_t = A_{t-1} + τ_t."""

    elementwise = True

    def absorb(self, tensor: TensorInput[NoParameters]) -> Absorbed:
        """Add the task vector."""
        return Absorbed(tensor.accumulated + tensor.task_vector)


class WeightAverage(SumOfTaskVectors):
    """Continual weight average. θ_t = θ_0 + A_t / t = ((t - 1) θ_{t-1} + θ^(t)) / t."""

    name = "weight_average"
    summary = "running mean of the checkpoints"
    source = "arXiv:2203.05482, Eq. of the uniform soup; one at a time as in arXiv:2501.09522, Section 5"

    def scale(self, norms: Norms, parameters: NoParameters) -> float:
        """Return the number of checkpoints so far."""
        return float(len(norms.task_vectors))


class AdaptiveScale(SumOfTaskVectors):
    """The scale of OPCM without its projection, an ablation of its paper. θ_t = θ_0 + A_t / λ_t."""

    name = "adaptive_scale"
    summary = "sum of the task vectors, scaled to their mean norm (OPCM without the projection)"
    source = "arXiv:2501.09522, Section 4 (adaptive time-varying scaling alone)"

    def scale(self, norms: Norms, parameters: NoParameters) -> float:
        """Return λ_t, see `adaptive_scale`."""
        return adaptive_scale(norms)


def adaptive_scale(norms: Norms) -> float:
    """Return λ_t = ||A_t|| / mean_{i<=t} ||τ_i||: 1 for the first task vector, and 1 if nothing changed at all."""
    if len(norms.task_vectors) == 1 or norms.accumulated == 0.0:
        return 1.0
    mean = sum(norms.task_vectors) / len(norms.task_vectors)
    return norms.accumulated / mean
