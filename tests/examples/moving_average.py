"""An exponential moving average of the checkpoints: the newest one counts most."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from hubmerge.methods import Absorbed, MethodParameters, Norms


class MovingAverage:
    """θ_t = (1 - w) θ_{t-1} + w θ^(t), hence A_t = (1 - w) A_{t-1} + w τ_t, from A_1 = τ_1 on."""

    name = "moving_average"
    source = "an exponential moving average, by its definition"

    class Parameters(MethodParameters):
        """Parameters of `moving_average`."""

        newest: float = Field(0.5, gt=0.0, le=1.0, description="how much the newest checkpoint counts")

    def absorb(self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: Any, *, step: int) -> Absorbed:
        """Weight matrices are averaged like everything else."""
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: Any, *, step: int
    ) -> torch.Tensor:
        """The average; the first checkpoint is taken whole."""
        return task_vector if step == 1 else accumulated.lerp(task_vector, parameters.newest)

    def scale(self, norms: Norms, parameters: Any) -> float:
        """The accumulated delta is the merged delta."""
        return 1.0
