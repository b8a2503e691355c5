"""Methods whose result is a linear combination of the models, with coefficients from their norms and angles.

The inner products of all pairs are summed block by block, in float64. They determine every norm and angle, so no tensor
is in memory as a whole.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import Blocks, JointMethod, JointParameters, TensorView
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

OFF = frozenset({"false", "0", "no", "off", "f", "n"})
"""Words for a switch that is off, as recipes of mergekit have them."""

Products = list[list[float]]
"""Inner products of all pairs of models."""

ROWS = 2
"""Models whose products with all later ones are computed at once: each pair once, and few calls."""


def inner_products(view: TensorView, *, with_base: bool = False) -> Products:
    """Return the inner products of all pairs of models; of their task vectors if there is a base model.

    Args:
        view: the tensor.
        with_base: take the models themselves, and the base model as the first of them.
    """
    total = memory = torch.empty(0)
    for base, tensors in view.blocks():
        if with_base and base is not None:
            tensors, base = [base, *tensors], None
        count, elements = len(tensors), tensors[0].numel()
        if not total.numel():
            total = tensors[0].new_zeros((count, count), dtype=torch.float64)
        if memory.shape != (count, elements):
            memory = tensors[0].new_empty((count, elements), dtype=torch.float64)
        for row, tensor in zip(memory, tensors, strict=True):
            row.copy_(tensor.reshape(-1))
        if base is not None:
            memory -= base.reshape(-1).to(torch.float64)
        for first in range(0, count, ROWS):
            total[first : first + ROWS, first:].addmm_(memory[first : first + ROWS], memory[first:].T)
    above = total.triu(1)
    products: Products = (total.triu() + above.T).tolist()
    return products


def combined(base: torch.Tensor | None, tensors: Sequence[torch.Tensor], coefficients: Sequence[float]) -> torch.Tensor:
    """Return Σ c_i x_i, or with a base model θ_0 + Σ c_i (x_i - θ_0)."""
    if base is None:
        result = tensors[0] * coefficients[0]
        for tensor, coefficient in zip(tensors[1:], coefficients[1:], strict=True):
            result.add_(tensor, alpha=coefficient)
        return result
    result = base.clone()
    for tensor, coefficient in zip(tensors, coefficients, strict=True):
        result.add_(tensor - base, alpha=coefficient)
    return result


class Combination(JointMethod):
    """Base of methods that are linear combinations: subclasses return the coefficients."""

    blocks: Blocks = "elements"

    def survey(self, view: TensorView, parameters: JointParameters[Any]) -> Sequence[float]:
        """Return the coefficients of the models."""
        return self.coefficients(inner_products(view), parameters)

    @abstractmethod
    def coefficients(self, products: Products, parameters: JointParameters[Any]) -> Sequence[float]:
        """Return the coefficients, given the inner products of the models, or of their task vectors."""

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the linear combination."""
        return combined(base, tensors, parameters.survey)


class LinearParameters(MethodParameters):
    """Parameters of `linear`."""

    weight: Annotated[float, PerTensor()] = Field(1.0, description="weight of a model; each model may have its own")
    normalize: Annotated[bool, PerTensor(entries=False)] = Field(True, description="divide by the sum of the weights")


class Linear(JointMethod):
    """Weighted mean of whole models. θ = Σ w_i θ^(i) / Σ w_i, or with `normalize: false` θ = Σ w_i θ^(i).

    The base model is part of the mean only where the recipe lists it, and the recipe need not name one.
    """

    name = "linear"
    summary = "weighted mean of whole models, the base model among them where it is listed"
    source = "arXiv:2203.05482, Eq. of the uniform soup, with weights"
    Parameters = LinearParameters
    base = "model"
    blocks = "elements"

    def merge(
        self,
        base: torch.Tensor | None,
        tensors: Sequence[torch.Tensor],
        parameters: JointParameters[LinearParameters],
    ) -> torch.Tensor:
        """Return the weighted sum, divided by the sum of the weights."""
        weights = [model.weight for model in parameters.models]
        result = combined(None, tensors, weights)
        if not parameters.whole.normalize:
            return result
        total = math.fsum(weights)
        if total == 0.0:
            raise ValueError("the weights sum to 0, and cannot be divided by their sum")
        return result.div_(total)

    def prefers_joint(self, parameters: dict[str, Any]) -> bool:
        """Return True for `normalize: false`, which no stream can have."""
        return super().prefers_joint(parameters) or str(parameters.get("normalize")).lower() in OFF


class SlerpParameters(MethodParameters):
    """Parameters of `slerp`."""

    t: Annotated[float, PerTensor(entries=False)] = Field(
        description="place between the base model, 0, and the other model, 1"
    )


class Slerp(JointMethod):
    """Spherical interpolation. θ = sin((1 - t) Ω) / sin Ω · θ_0 + sin(t Ω) / sin Ω · θ^(1).

    Ω is the angle between base model θ_0 and the other model. Each tensor is one vector. Where the two are nearly
    parallel, |cos Ω| > 0.9995, the interpolation is linear: θ = (1 - t) θ_0 + t θ^(1).
    """

    name = "slerp"
    summary = "spherical interpolation between the base model and one other model"
    source = "Shoemake, SIGGRAPH 1985, Section 3.3"
    Parameters = SlerpParameters
    blocks = "elements"
    most = 1

    PARALLEL = 0.9995
    SMALLEST_NORM = 1e-8

    def survey(self, view: TensorView, parameters: JointParameters[SlerpParameters]) -> Sequence[float]:
        """Return the coefficients of base model and other model."""
        (first, product), (_, second) = inner_products(view, with_base=True)
        lengths = [math.sqrt(square) for square in (first, second)]
        lengths = [length if length > self.SMALLEST_NORM else 1.0 for length in lengths]
        return arc(product / lengths[0] / lengths[1], parameters.whole.t, linear_from=self.PARALLEL)

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[SlerpParameters]
    ) -> torch.Tensor:
        """Return the interpolated block."""
        return combined(None, [tensor for tensor in (base, *tensors) if tensor is not None], parameters.survey)


def arc(cosine: float, t: float, *, linear_from: float) -> tuple[float, float]:
    """Return the coefficients of two vectors for the point `t` on the arc between them.

    Args:
        cosine: cosine of the angle between them.
        t: place on the arc, 0 for the first vector.
        linear_from: magnitude of the cosine from which the straight line takes the place of the arc.
    """
    cosine = max(-1.0, min(1.0, cosine))
    if abs(cosine) > linear_from:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
