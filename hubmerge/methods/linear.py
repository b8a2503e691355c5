"""Weighted mean of the checkpoints: mergekit's `linear`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from hubmerge.methods.base import Absorbed, Method, MethodParameters, TensorInput
from hubmerge.methods.weighted_mean import SUM_OF_WEIGHTS, mean_of_both, weighted_mean
from merge_recipes import PerTensor


class LinearParameters(MethodParameters):
    """Parameters of `linear`."""

    weight: Annotated[float, PerTensor()] = Field(1.0, description="weight of an entry; each entry may have its own")
    normalize: Literal[True] = Field(True, description="divide by the sum of the weights; a stream always does")


class Linear(Method):
    """Weighted mean. θ_t = Σ_{i<=t} w_i θ^(i) / Σ_{i<=t} w_i, hence θ_0 plus the weighted mean of the task vectors.

    mergekit's `linear` with `normalize: true`. The base model is part of the mean only if it is an entry. With equal
    weights this is `weight_average`.
    """

    name = "linear"
    summary = "weighted mean of the checkpoints"
    source = "arXiv:2203.05482, Eq. of the uniform soup, with weights as in mergekit 0.1 `linear`"
    Parameters = LinearParameters
    elementwise = True
    revokes = True
    adds = True
    order_free = True

    def state_parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return the sum of the weights so far, which may differ between tensors."""
        return {SUM_OF_WEIGHTS: ()}

    def absorb(self, tensor: TensorInput[LinearParameters]) -> Absorbed:
        """Add the task vector to the weighted mean."""
        return weighted_mean(tensor, tensor.task_vector, tensor.sign * tensor.parameters.weight)

    def add(self, one: Absorbed, other: Absorbed) -> Absorbed:
        """Return the weighted mean of two weighted means."""
        return mean_of_both(one, other)
