"""Methods that change the merged task vector of another joint method: SVC and LiNeS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.competition import Pcb
from hubmerge.methods.joint.elementwise import Ram, Sce
from hubmerge.methods.joint.sparse import Breadcrumbs, BreadcrumbsTies, DareLinear, DareTies, Della, DellaLinear
from hubmerge.methods.joint.spectra import NULL, IsoCts, TsvM, svd
from hubmerge.methods.joint.task_vectors import TaskArithmetic, Ties
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

Whole = PerTensor(entries=False)

SUMS: Mapping[str, JointMethod] = {
    method.name: method
    for method in (
        TaskArithmetic(),
        Ties(),
        DareLinear(),
        DareTies(),
        DellaLinear(),
        Della(),
        Breadcrumbs(),
        BreadcrumbsTies(),
        Sce(),
        Ram(),
        Pcb(),
        TsvM(),
        IsoCts(),
    )
}
"""Methods whose merged task vector can be changed."""

SumName = Literal[
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della_linear",
    "della",
    "breadcrumbs",
    "breadcrumbs_ties",
    "sce",
    "ram",
    "pcb",
    "tsv_m",
    "iso_cts",
]


class PostParameters(MethodParameters):
    """Parameters of a method that changes the result of another one: its name, and its parameters."""

    of: SumName = Field("task_arithmetic", description="method whose merged task vector is changed")
    weight: Annotated[float | None, PerTensor()] = Field(None, description="weight of a model, as in that method")
    density: Annotated[float | None, PerTensor()] = Field(None, description="as in that method")
    gamma: Annotated[float | None, PerTensor()] = Field(None, description="as in that method")
    epsilon: Annotated[float | None, PerTensor()] = Field(None, description="as in that method")
    normalize: Annotated[bool | None, Whole] = Field(None, description="as in that method")
    rescale: Annotated[bool | None, Whole] = Field(None, description="as in that method")
    lambda_: Annotated[float | None, Whole] = Field(None, alias="lambda", description="as in that method")
    select_topk: Annotated[float | None, Whole] = Field(None, description="as in that method")
    scaling: Annotated[float | None, Whole] = Field(None, description="as in that method")
    common: Annotated[float | None, Whole] = Field(None, description="as in that method")

    @model_validator(mode="after")
    def _of_that_method(self) -> PostParameters:
        self.inner()
        return self

    def inner(self) -> MethodParameters:
        """Return the parameters of the other method.

        Raises:
            ValueError: it does not have one of them, or needs one that is missing.
        """
        own = type(self).model_fields.keys() - PostParameters.model_fields.keys()
        given = {name: getattr(self, name) for name in self.model_fields_set - own - {"of"}}
        fields = SUMS[self.of].Parameters.model_fields
        unknown = sorted(given.keys() - fields.keys())
        if unknown:
            raise ValueError(f"{self.of} has no parameter {unknown[0].rstrip('_')}")
        missing = sorted(name for name, field in fields.items() if field.is_required() and name not in given)
        if missing:
            raise ValueError(f"{self.of} needs the parameter {missing[0]}, for every model and every tensor")
        values = {fields[name].alias or name: value for name, value in given.items() if value is not None}
        return SUMS[self.of].Parameters.model_validate(values)


@dataclass(frozen=True)
class WholeView:
    """Implementation of `TensorView` for tensors in memory, as a single block."""

    base: torch.Tensor
    tensors: Sequence[torch.Tensor]
    rows: bool

    @property
    def count(self) -> int:
        """Number of models."""
        return len(self.tensors)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.base.shape)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.base.numel()

    def shaped(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor in the form of a block."""
        return tensor.reshape(-1, tensor.shape[-1] if tensor.dim() else 1) if self.rows else tensor.reshape(-1)

    def blocks(self) -> Iterator[tuple[torch.Tensor | None, list[torch.Tensor]]]:
        """Yield the only block."""
        yield self.shaped(self.base), [self.shaped(tensor) for tensor in self.tensors]

    def deltas(self, model: int) -> Iterator[torch.Tensor]:
        """Yield the only block of a task vector."""
        yield self.shaped(self.tensors[model] - self.base)


def _inner(parameters: JointParameters[PostParameters]) -> JointParameters[Any]:
    """Return the parameters of the other method."""
    models = tuple(model.inner() for model in parameters.models)
    others: dict[str, Any] = {"whole": models[0], "models": models}
    return replace(parameters, **others)


class SvcParameters(PostParameters):
    """Parameters of `svc`."""

    alpha: Annotated[float, Whole] = Field(0.1, gt=0.0, description="smallest response of a task that counts")


class Svc(JointMethod):
    """Singular value calibration of the merged task vector Δ = U Σ V^T of another method. σ_r becomes γ_r σ_r.

    γ_r = n / Σ_i max(α, s_i), s_i = <u_r^T Δ, u_r^T τ_i> / |u_r^T τ_i|², for n task vectors. So directions that several
    tasks share, and that a sum counts several times, are scaled down. Other tensors than weight matrices are those of
    the other method.
    """

    name = "svc"
    summary = "another method's result with the singular values of shared directions scaled down"
    source = "arXiv:2602.05536, Section 4 (Eq. 8 and the calibration)"
    order_free = False  # the other method may draw
    Parameters = SvcParameters
    copies = 10

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[SvcParameters]
    ) -> torch.Tensor:
        """Return the base model plus the calibrated task vector."""
        assert base is not None  # noqa: S101 - the method requires a base model
        inner = _inner(parameters)
        other = SUMS[parameters.whole.of].variant_for(inner.whole)
        if other.blocks == "tensor":
            merged = other.merge(base, tensors, inner)
        else:
            view = WholeView(base, list(tensors), rows=other.blocks == "rows")
            (block,) = view.blocks()
            merged = other.merge(*block, replace(inner, survey=other.survey(view, inner))).view(base.shape)
        if not parameters.is_matrix:
            return merged
        alpha, turned = parameters.whole.alpha, parameters.transposed
        if base.dim() == 2:
            return base + self.calibrated(merged - base, base, tensors, alpha, turned=turned)
        parts = [
            self.calibrated(merged[k] - base[k], base[k], [tensor[k] for tensor in tensors], alpha, turned=turned)
            for k in range(base.shape[0])
        ]
        return base + torch.stack(parts)

    def calibrated(
        self,
        delta: torch.Tensor,
        base: torch.Tensor,
        tensors: Sequence[torch.Tensor],
        alpha: float,
        *,
        turned: bool = False,
    ) -> torch.Tensor:
        """Return the merged task vector of one matrix with calibrated singular values.

        Args:
            delta: the merged task vector.
            base: the base model's matrix.
            tensors: those of the models.
            alpha: smallest response of a task that counts.
            turned: all matrices are (inputs, outputs).
        """
        left, values, right = svd(delta.T if turned else delta)
        total = torch.zeros_like(values)
        for tensor in tensors:
            own = (tensor - base).to(torch.float64)
            responses = left.T @ (own.T if turned else own)
            energies = responses.square().sum(1)
            products = (responses * (values[:, None] * right)).sum(1)
            shares = torch.where(energies > 0.0, products / energies, 0.0)
            total += shares.clamp(min=alpha)
        factors = torch.where(values > NULL * values.max(), len(tensors) / total, 1.0)
        result = ((left * (values * factors)) @ right).to(delta.dtype)
        return result.T if turned else result


class LinesParameters(PostParameters):
    """Parameters of `lines`."""

    alpha: Annotated[float, Whole] = Field(1.0, description="factor of the first layer, and of all that come before")
    beta: Annotated[float, Whole] = Field(1.0, description="how much larger the factor of the last layer is")


class Lines(JointMethod):
    """LiNeS: the merged task vector of another method, scaled linearly with the depth of the layer.

    θ = θ_0 + (α + β l / (L - 1)) Δ in layer l of L, from 0. Tensors before the layers, such as embeddings of the input,
    count as l = 0; tensors after them, such as a last norm or a head, as l = L - 1.
    """

    name = "lines"
    summary = "another method's result, scaled with the depth of the layer"
    source = "arXiv:2410.17146, Eq. 3"
    order_free = False  # the other method may draw
    Parameters = LinesParameters

    def variant_for(self, parameters: LinesParameters) -> JointMethod:
        """Return the form whose blocks are those of the other method."""
        return _LinesOf(SUMS[parameters.of].variant_for(parameters.inner()))

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[LinesParameters]
    ) -> torch.Tensor:
        """Return the base model plus the scaled task vector."""
        return self.variant_for(parameters.whole).merge(base, tensors, parameters)


class _LinesOf(Lines):
    """`lines` after one method."""

    def __init__(self, other: JointMethod) -> None:
        self._other = other
        self.blocks = other.blocks
        self.copies = other.copies

    def variant_for(self, parameters: LinesParameters) -> JointMethod:
        return self

    def survey(self, view: TensorView, parameters: JointParameters[LinesParameters]) -> Any:
        return self._other.survey(view, _inner(parameters))

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[LinesParameters]
    ) -> torch.Tensor:
        assert base is not None  # noqa: S101 - the method requires a base model
        merged = self._other.merge(base, tensors, _inner(parameters))
        share = depth(parameters)
        return base + (parameters.whole.alpha + parameters.whole.beta * share) * (merged - base)


def depth(parameters: JointParameters[Any]) -> float:
    """Return the depth of a tensor: 0 in the first layer and before it, 1 in the last one and after it."""
    if parameters.layer is not None:
        return parameters.layer / (parameters.layers - 1) if parameters.layers > 1 else 1.0
    return 0.0 if parameters.before_layers else 1.0
