"""The running mean of the checkpoints."""

from __future__ import annotations

from typing import Literal

from hubmerge.methods.base import Absorbed, NoParameters, Norms
from hubmerge.support.lazy import torch


class WeightAverage:
    """Continual weight average. A_t = A_{t-1} + τ_t,  θ_t = θ_0 + A_t / t = ((t - 1) θ_{t-1} + θ^(t)) / t."""

    name = "weight_average"
    source = "arXiv:2203.05482, Eq. of the uniform soup; taken one by one as in arXiv:2501.09522, Section 5"
    Parameters = NoParameters
    elementwise: Literal[True] = True

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NoParameters, *, step: int
    ) -> Absorbed:
        """The sum."""
        return Absorbed(accumulated + task_vector)

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NoParameters, *, step: int
    ) -> torch.Tensor:
        """The sum."""
        return accumulated + task_vector

    def scale(self, norms: Norms, parameters: NoParameters) -> float:
        """The number of checkpoints so far."""
        return float(len(norms.task_vectors))
