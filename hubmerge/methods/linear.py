"""The weighted mean of the checkpoints: mergekit's linear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from hubmerge.methods.base import MethodParameters, PartedTensor
from hubmerge.methods.folding import PartedFold, weighted_mean
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor


class LinearParameters(MethodParameters):
    """Parameters of `linear`."""

    weight: Annotated[float, PerTensor()] = Field(1.0, description="weight of an entry, for each its own")
    normalize: Literal[True] = Field(True, description="divide by the sum of the weights; a fold cannot do without")


class Linear(PartedFold):
    """Weighted mean. θ_t = Σ_{i<=t} w_i θ^(i) / Σ_{i<=t} w_i, hence θ_0 plus the weighted mean of the task vectors.

    mergekit's `linear` with `normalize: true`. The base model has no part in the mean unless it is an entry. With
    equal weights this is `weight_average`.
    """

    name = "linear"
    source = "arXiv:2203.05482, Eq. of the uniform soup, with weights as in mergekit 0.1 `linear`"
    Parameters = LinearParameters
    elementwise: Literal[True] = True

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """The sum of the weights so far, which may differ from tensor to tensor."""
        return {"weight": ()}

    def absorb_parts(
        self,
        accumulated: torch.Tensor,
        parts: Mapping[str, torch.Tensor],
        task_vector: torch.Tensor,
        parameters: LinearParameters,
        *,
        step: int,
    ) -> PartedTensor:
        """The weighted mean with one more."""
        return weighted_mean(accumulated, parts, task_vector, parameters.weight)
