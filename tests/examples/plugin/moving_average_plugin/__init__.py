"""A merge method for hubmerge: an exponential moving average of the checkpoints."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hubmerge.methods import Absorbed, Method, MethodParameters, TensorInput


class PluginAverage(Method):
    """Exponential moving average. A_1 = τ_1,  A_t = (1 - w) A_{t-1} + w τ_t."""

    name = "plugin_average"
    summary = "exponential moving average of the checkpoints"
    source = "by its definition"
    elementwise = True

    class Parameters(MethodParameters):
        """Parameters of `plugin_average`."""

        newest: float = Field(0.5, gt=0.0, le=1.0, description="weight of the newest checkpoint")

    def absorb(self, tensor: TensorInput[Any]) -> Absorbed:
        """Average with the newest checkpoint; the first one is taken whole."""
        if tensor.step == 1:
            return Absorbed(tensor.task_vector)
        return Absorbed(tensor.accumulated.lerp(tensor.task_vector, tensor.parameters.newest))
