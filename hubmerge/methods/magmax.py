"""MagMax: of all task vectors, the element that moved most."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hubmerge.methods.base import Absorbed, MethodParameters, Norms
from hubmerge.support.lazy import torch


class MagMaxParameters(MethodParameters):
    """Parameters of `magmax`."""

    scaling: float = Field(0.5, gt=0.0, description="what the merged task vector is multiplied with")


class MagMax:
    """MagMax. A_t[p] = τ_k[p] with k = argmax_{i<=t} |τ_i[p]|,  θ_t = θ_0 + c A_t; of equals the later one.

    A running maximum, hence a fold.
    """

    name = "magmax"
    source = "arXiv:2407.06322, Section 4 (maximum magnitude selection)"
    Parameters = MagMaxParameters
    elementwise: Literal[True] = True

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: MagMaxParameters, *, step: int
    ) -> Absorbed:
        """Element by element whichever is larger in magnitude."""
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: MagMaxParameters, *, step: int
    ) -> torch.Tensor:
        """Element by element whichever is larger in magnitude."""
        return torch.where(task_vector.abs() >= accumulated.abs(), task_vector, accumulated)

    def scale(self, norms: Norms, parameters: MagMaxParameters) -> float:
        """1 / c."""
        return 1.0 / parameters.scaling
