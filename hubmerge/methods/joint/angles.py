"""Means on spheres, and Model Stock: linear combinations whose coefficients follow from norms and angles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import Blocks, JointMethod, JointParameters
from hubmerge.methods.joint.combination import Combination, Products, arc
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

Whole = PerTensor(entries=False)


class NuslerpParameters(MethodParameters):
    """Parameters of `nuslerp`."""

    weight: Annotated[float, PerTensor()] = Field(description="weight of a model; each model may have its own")
    nuslerp_flatten: Annotated[bool, Whole] = Field(True, description="take each tensor as one vector")
    nuslerp_row_wise: Annotated[bool, Whole] = Field(
        False, description="without nuslerp_flatten: take vectors along the first dimension, not along the last one"
    )


class Nuslerp(Combination):
    """Spherical interpolation between two models, or between their task vectors if there is a base model.

    θ = (sin((1 - t) Ω) x_1 + sin(t Ω) x_2) / sin Ω with t = w_2 / (w_1 + w_2) and the angle Ω between x_1 and x_2; plus
    θ_0 if x_i are task vectors. Parallel vectors are interpolated linearly. t is 0.5 if the weights cancel.
    """

    name = "nuslerp"
    summary = "spherical interpolation between two models or their task vectors"
    source = "Shoemake, SIGGRAPH 1985, Section 3.3, with t from weights"
    Parameters = NuslerpParameters
    base = "optional"
    fewest = 2
    most = 2

    def variant_for(self, parameters: NuslerpParameters) -> JointMethod:
        """Return the form with many vectors in a tensor, if the parameters ask for it."""
        if parameters.nuslerp_flatten:
            return self
        return _NuslerpOfColumns() if parameters.nuslerp_row_wise else _NuslerpOfRows()

    def coefficients(self, products: Products, parameters: JointParameters[NuslerpParameters]) -> Sequence[float]:
        """Return those of the two points."""
        lengths = [max(math.sqrt(products[place][place]), 1e-7) for place in (0, 1)]
        cosine = max(-1.0, min(1.0, products[0][1] / lengths[0] / lengths[1]))
        parallel = 1.0 - cosine**2 <= 1e-16
        return arc(cosine, place_between(parameters), linear_from=0.0 if parallel else 1.0)


def place_between(parameters: JointParameters[NuslerpParameters]) -> float:
    """Return t from the two weights."""
    first, second = (model.weight for model in parameters.models)
    return 0.5 if abs(first + second) < 1e-6 else second / (first + second)


class _NuslerpOfRows(Nuslerp):
    """`nuslerp` whose vectors are the rows along the last dimension."""

    blocks: Blocks = "rows"

    def survey(self, view: Any, parameters: JointParameters[NuslerpParameters]) -> Any:
        return None

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[NuslerpParameters]
    ) -> torch.Tensor:
        first, second = tensors if base is None else (tensor - base for tensor in tensors)
        result = between_rows(first, second, place_between(parameters))
        return result if base is None else result.add_(base)


class _NuslerpOfColumns(_NuslerpOfRows):
    """`nuslerp` whose vectors are along the first dimension."""

    blocks = "tensor"
    copies = 6

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[NuslerpParameters]
    ) -> torch.Tensor:
        if tensors[0].dim() == 0:
            return super().merge(base, tensors, parameters)
        turned = [tensor.transpose(0, -1) for tensor in tensors]
        result = super().merge(None if base is None else base.transpose(0, -1), turned, parameters)
        return result.transpose(0, -1)


def between_rows(first: torch.Tensor, second: torch.Tensor, t: float) -> torch.Tensor:
    """Return the spherical interpolation of the rows of two matrices."""
    units = [rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-7) for rows in (first, second)]
    cosines = (units[0] * units[1]).sum(-1, keepdim=True).clamp(-1.0, 1.0)
    parallel = 1.0 - cosines.square() <= 1e-16
    angles = torch.acos(torch.where(parallel, 0.0, cosines))
    coefficients = [torch.sin(share * angles) / torch.sin(angles) for share in (1.0 - t, t)]
    one, other = (torch.where(parallel, share, c) for share, c in zip((1.0 - t, t), coefficients, strict=True))
    return one * first + other * second


class MultislerpParameters(MethodParameters):
    """Parameters of `multislerp`."""

    weight: Annotated[float, PerTensor()] = Field(description="weight of a model; each model may have its own")
    normalize_weights: Annotated[bool, Whole] = Field(True, description="divide the weights by their sum")
    eps: Annotated[float, Whole] = Field(1e-8, gt=0.0, description="smallest norm that is divided by")


class Multislerp(Combination):
    """Mean direction of several models, or of their task vectors, with their mean length.

    θ = (Σ w_i |x_i|) m / |m| with m = Σ w_i x_i / |x_i|; plus θ_0 if x_i are task vectors. This is the first step of
    the barycenter on the sphere: in the tangent space at m / |m|, the weighted sum of the points is zero, so the step
    ends where it begins.
    """

    name = "multislerp"
    summary = "mean direction and mean length of several models or task vectors"
    source = "goddard.blog/posts/multislerp-wow-what-a-cool-idea; Buss and Fillmore, ACM TOG 2001, Section 2"
    Parameters = MultislerpParameters
    base = "optional"

    def coefficients(self, products: Products, parameters: JointParameters[MultislerpParameters]) -> Sequence[float]:
        """Return w_i (Σ w_j |x_j|) / (|x_i| |m|); two opposite points are averaged."""
        eps, weights = parameters.whole.eps, [model.weight for model in parameters.models]
        if len(weights) == 1:
            return [1.0]
        if parameters.whole.normalize_weights:
            weights = normalized(weights)
        lengths = [math.sqrt(products[place][place]) for place in range(len(weights))]
        shares = [weight / (length + eps) for weight, length in zip(weights, lengths, strict=True)]
        mean = length_of(shares, products)
        if mean < eps:
            if len(weights) == 2:
                return weights
            raise ValueError("the directions of the models cancel: change their weights")
        scale = math.fsum(weight * length for weight, length in zip(weights, lengths, strict=True)) / mean
        return [share * scale for share in shares]


def normalized(weights: Sequence[float]) -> list[float]:
    """Return weights divided by their sum.

    Raises:
        ValueError: the sum is zero.
    """
    total = math.fsum(weights)
    if total == 0.0:
        raise ValueError("the weights sum to 0, and cannot be divided by their sum")
    return [weight / total for weight in weights]


def length_of(coefficients: Sequence[float], products: Products) -> float:
    """Return the norm of a linear combination from the inner products of its terms."""
    terms = (
        one * other * products[row][column]
        for row, one in enumerate(coefficients)
        for column, other in enumerate(coefficients)
    )
    return math.sqrt(max(0.0, math.fsum(terms)))


class KarcherParameters(MethodParameters):
    """Parameters of `karcher`."""

    max_iter: Annotated[int, Whole] = Field(10, ge=0, description="largest number of steps")
    tol: Annotated[float, Whole] = Field(1e-5, ge=0.0, description="length of a step from which the mean is found")


class Karcher(Combination):
    """Karcher mean of the directions of all models, with their mean length.

    From m = Σ u_i / |Σ u_i| with u_i = x_i / |x_i|, repeat: v = mean of log_m(u_i), m = exp_m(v), on the unit sphere.
    θ = m · mean |x_i|. Models with a norm of at most `tol` have no direction.
    """

    name = "karcher"
    summary = "mean direction on the sphere and mean length of all models"
    source = "Karcher, Comm. Pure Appl. Math. 1977; as in arXiv:2603.04972"
    Parameters = KarcherParameters
    base = "model"
    base_joins = True

    def coefficients(self, products: Products, parameters: JointParameters[KarcherParameters]) -> Sequence[float]:
        """Return those of the mean."""
        count, tol = len(products), parameters.whole.tol
        lengths = [math.sqrt(products[place][place]) for place in range(count)]
        valid = [place for place in range(count) if lengths[place] > tol]
        if count == 1 or not valid:
            return [float(count == 1)] * count
        cosines = [[products[one][other] / lengths[one] / lengths[other] for other in valid] for one in valid]
        mean = _karcher_mean(cosines, parameters.whole.max_iter, tol)
        scale = math.fsum(lengths) / count
        found = dict(zip(valid, mean, strict=True))
        return [scale * found[place] / lengths[place] if place in found else 0.0 for place in range(count)]


def _karcher_mean(cosines: Products, steps: int, tol: float) -> list[float]:
    """Return the mean of unit vectors as a linear combination of them."""
    count = len(cosines)
    length = length_of([1.0 / count] * count, cosines)
    mean = [1.0 / count / length] * count if length >= tol else [1.0, *[0.0] * (count - 1)]
    for _ in range(steps):
        tangent = [0.0] * count
        for place in range(count):
            cosine = max(-1.0, min(1.0, math.fsum(c * m for c, m in zip(cosines[place], mean, strict=True))))
            angle = math.acos(cosine)
            if angle < tol:
                continue
            share = angle / math.sin(angle) / count if math.sin(angle) else math.inf
            tangent = [value - share * cosine * m for value, m in zip(tangent, mean, strict=True)]
            tangent[place] += share
        length = length_of(tangent, cosines)
        if not length >= tol or math.isinf(length):
            break
        moved = [
            math.cos(length) * m + math.sin(length) * value / length for m, value in zip(mean, tangent, strict=True)
        ]
        unit = length_of(moved, cosines)
        mean = [value / unit for value in moved] if unit > tol else moved
    return mean


class ModelStockParameters(MethodParameters):
    """Parameters of `model_stock`."""

    filter_wise: Annotated[bool, Whole] = Field(False, description="one ratio for each row, not for each tensor")


class ModelStock(Combination):
    """Model Stock. θ = t mean(θ^(i)) + (1 - t) θ_0 with t = k cos Ω / (1 + (k - 1) cos Ω).

    k is the number of models, cos Ω the mean cosine of the angles between their task vectors, of a tensor or with
    `filter_wise` of each row. Where 1 + (k - 1) cos Ω is zero, t is 0.
    """

    name = "model_stock"
    summary = "mean of the models, pulled to the base model by the angles between them"
    source = "arXiv:2403.19522, Eq. 4 and Section 3.3"
    Parameters = ModelStockParameters
    fewest = 2

    SMALLEST = 1e-6

    def variant_for(self, parameters: ModelStockParameters) -> JointMethod:
        """Return the form with a ratio for each row, if the parameters ask for it."""
        return _ModelStockOfRows() if parameters.filter_wise else self

    def coefficients(self, products: Products, parameters: JointParameters[Any]) -> Sequence[float]:
        """Return t / k for each model."""
        count = len(products)
        lengths = [math.sqrt(products[place][place]) for place in range(count)]
        cosines = [
            max(-1.0, min(1.0, products[one][other] / max(lengths[one] * lengths[other], self.SMALLEST)))
            for one in range(count)
            for other in range(one + 1, count)
        ]
        cosine = math.fsum(cosines) / len(cosines)
        divisor = 1.0 + (count - 1) * cosine
        return [cosine / divisor if abs(divisor) >= self.SMALLEST else 0.0] * count


class _ModelStockOfRows(ModelStock):
    """`model_stock` with a ratio for each row."""

    blocks = "rows"

    def survey(self, view: Any, parameters: JointParameters[Any]) -> Any:
        return None

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        assert base is not None  # noqa: S101 - the method requires a base model
        deltas = [tensor - base for tensor in tensors]
        lengths = [delta.norm(dim=-1) for delta in deltas]
        cosines = [
            ((deltas[one] * deltas[other]).sum(-1) / (lengths[one] * lengths[other]).clamp(min=self.SMALLEST)).clamp(
                -1.0, 1.0
            )
            for one in range(len(deltas))
            for other in range(one + 1, len(deltas))
        ]
        cosine = torch.stack(cosines).mean(0).unsqueeze(-1)
        divisor = 1.0 + (len(deltas) - 1) * cosine
        ratio = torch.where(divisor.abs() < self.SMALLEST, 0.0, cosine / divisor)
        return base + ratio * torch.stack(deltas).sum(0)
