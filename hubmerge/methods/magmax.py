"""MagMax: for each element, the task vector that changed it most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, TensorInput
from hubmerge.support.lazy import torch


class MagMaxParameters(MethodParameters):
    """Parameters of `magmax`."""

    scaling: float = Field(0.5, gt=0.0, description="factor of the merged task vector")


class MagMax(Method):
    """MagMax. A_t[p] = τ_k[p] with k = argmax_{i<=t} |τ_i[p]|,  θ_t = θ_0 + c A_t; of equal magnitudes the later one.

    A running maximum, hence a fold.
    """

    name = "magmax"
    summary = "for each element the change of largest magnitude"
    source = "arXiv:2407.06322, Section 4 (maximum magnitude selection)"
    Parameters = MagMaxParameters
    elementwise = True

    def state_parameters(self, parameters: MagMaxParameters) -> Mapping[str, Any]:
        """Return all but the factor, which is a scale."""
        return parameters.model_dump(mode="json", exclude={"scaling"})

    def absorb(self, tensor: TensorInput[MagMaxParameters]) -> Absorbed:
        """Take for each element the value of larger magnitude."""
        larger = tensor.task_vector.abs() >= tensor.accumulated.abs()
        return Absorbed(torch.where(larger, tensor.task_vector, tensor.accumulated))

    def scale(self, norms: Norms, parameters: MagMaxParameters) -> float:
        """Return 1 / c."""
        return 1.0 / parameters.scaling
