"""Task arithmetic, one checkpoint after another."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from hubmerge.methods.base import Absorbed, MethodParameters, Norms
from merge_recipes import PerTensor


class TaskArithmeticParameters(MethodParameters):
    """Parameters of `task_arithmetic`."""

    scaling: Annotated[float, PerTensor()] = Field(0.3, description="what each task vector is multiplied with")


class TaskArithmetic:
    """Continual task arithmetic. θ_t = θ_{t-1} + c τ_t, hence A_t = A_{t-1} + c τ_t and θ_t = θ_0 + A_t.

    The factor is inside the sum, so that every checkpoint and every tensor may have its own.
    """

    name = "task_arithmetic"
    source = "arXiv:2212.04089, Section 2 (addition); taken one by one as in arXiv:2501.09522, Section 5"
    Parameters = TaskArithmeticParameters

    def absorb(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: TaskArithmeticParameters,
        *,
        step: int,
    ) -> Absorbed:
        """The weighted sum."""
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: TaskArithmeticParameters,
        *,
        step: int,
    ) -> torch.Tensor:
        """The weighted sum."""
        return accumulated + parameters.scaling * task_vector

    def scale(self, norms: Norms, parameters: TaskArithmeticParameters) -> float:
        """Nothing is left to divide by."""
        return 1.0
