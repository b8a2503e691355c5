"""Base of methods that read moments."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from hubmerge.linalg import add_to_triangle, frobenius_norm, packed_length, unpack_triangle
from hubmerge.methods.base import Absorbed, Method, MethodParameters, ReadInput, TensorInput
from hubmerge.methods.moments.together import equal_groups
from hubmerge.methods.others import OTHERS, Others, read_other
from hubmerge.methods.weighted_mean import SUM_OF_WEIGHTS
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

STATE = "moments"
"""Name of the states of all methods that read moments."""

PRODUCTS, GRAM = "products", "gram"
"""Names of the state parts N and the upper triangle of G; that of c is SUM_OF_WEIGHTS."""


class MomentParameters(MethodParameters):
    """Parameters of every method that reads moments."""

    weight: Annotated[float, PerTensor(), Field(gt=0.0)] = Field(
        1.0, description="weight of an entry; each entry may have its own"
    )
    others: Others = Field("mean", description=OTHERS)
    precision: Literal["float64", "float32"] = Field(
        "float64", description="precision of the products that a step adds to N and G; `float32` is faster"
    )


@dataclass(frozen=True)
class Moments:
    """Moments of one (m, n) weight matrix of m outputs and n inputs, float64.

    Attributes:
        sum: S, (m, n).
        products: N, (m, n).
        gram: G, (n, n).
        weight: c; 0 if no entry was added.
    """

    sum: torch.Tensor
    products: torch.Tensor
    gram: torch.Tensor
    weight: float

    @property
    def mean(self) -> torch.Tensor:
        """S / c."""
        return self.sum / self.weight if self.weight > 0.0 else self.sum


class MomentMethod(Method):
    """A method that reads the merged delta out of the moments of all task vectors.

    A subclass implements `read_moments`. Entries may come in any order, and be taken out again. Its own parameters
    matter only where the merged model is read; one that absorbs differently needs another `state_name` and its own
    `state_parameters`.
    """

    Parameters: type[MethodParameters] = MomentParameters
    state_name = STATE
    reads_state = True
    revokes = True
    adds = True
    order_free = True
    inputs_last = True
    multiplies_together = True
    matrix_copies = 7
    square_copies = 3

    @abstractmethod
    def read_moments(self, moments: Moments, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of an (m, n) weight matrix, float64.

        Args:
            moments: the moments of the matrix.
            tensor: the parameters, and norms over the whole model.
        """

    def read_together(self, moments: Sequence[Moments], tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return `read_moments` of several matrices of one shape with equal parameters; one by one by default."""
        return [self.read_moments(own, tensor) for own, tensor in zip(moments, tensors, strict=True)]

    def state_parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Return c alone."""
        return {SUM_OF_WEIGHTS: ()}

    def matrix_parts(self, shape: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
        """Return N, the triangle of G, and c."""
        return {PRODUCTS: shape, GRAM: (packed_length(shape[1]),), SUM_OF_WEIGHTS: ()}

    def state_parameters(self, parameters: MomentParameters) -> Mapping[str, Any]:
        """Return the weight and the precision of the products."""
        return {"weight": parameters.weight, "precision": parameters.precision}

    def absorb(self, tensor: TensorInput[MomentParameters]) -> Absorbed:
        """Add the task vector to S."""
        weight = tensor.sign * tensor.parameters.weight
        total = torch.add(tensor.accumulated, tensor.task_vector, alpha=weight)
        return Absorbed(total, {SUM_OF_WEIGHTS: tensor.parts[SUM_OF_WEIGHTS] + weight})

    def absorb_matrix(self, tensor: TensorInput[MomentParameters]) -> Absorbed:
        """Add the task vector to S, N and G. One that is zero changes only c."""
        (absorbed,) = self.absorb_matrices([tensor])
        return absorbed

    def absorb_matrices(self, tensors: Sequence[TensorInput[MomentParameters]]) -> Sequence[Absorbed]:
        """Do what `absorb_matrix` says for several matrices; those of one shape are multiplied together."""
        norms = [frobenius_norm(tensor.task_vector) for tensor in tensors]
        found = {place: self._unmoved(tensor) for place, tensor in enumerate(tensors) if norms[place] == 0.0}
        groups = equal_groups(
            [place for place in range(len(tensors)) if place not in found],
            lambda place: (tensors[place].task_vector.shape, tensors[place].parameters.precision),
            lambda place: max(tensors[place].task_vector.numel(), tensors[place].task_vector.shape[1] ** 2),
        )
        for group in groups:
            units = [_unit(tensors[place], norms[place]) for place in group]
            for place, square, product in zip(group, *_products(units), strict=True):
                found[place] = self._moved(tensors[place], norms[place], square, product)
        return [found[place] for place in range(len(tensors))]

    def _unmoved(self, tensor: TensorInput[MomentParameters]) -> Absorbed:
        absorbed = self.absorb(tensor)
        return replace(absorbed, parts={**tensor.parts, **absorbed.parts})

    def _moved(
        self, tensor: TensorInput[MomentParameters], norm: float, square: torch.Tensor, product: torch.Tensor
    ) -> Absorbed:
        absorbed, weight = self.absorb(tensor), tensor.sign * tensor.parameters.weight
        products, gram = tensor.parts[PRODUCTS], tensor.parts[GRAM]
        gram = add_to_triangle(gram, square.to(gram.dtype), weight)
        products = torch.add(products, product.to(products.dtype), alpha=weight * norm)
        return replace(absorbed, parts={**absorbed.parts, PRODUCTS: products, GRAM: gram})

    def read(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of a tensor that is not a weight matrix, as `others` says."""
        return read_other(tensor, tensor.parameters.others, float(tensor.parts[SUM_OF_WEIGHTS]))

    def read_matrix(self, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return the merged delta of a weight matrix."""
        return self.read_moments(_moments(tensor), tensor)

    def read_matrices(self, tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return the merged delta of several weight matrices; those of one shape are read together."""
        found: dict[int, torch.Tensor] = {}
        groups = equal_groups(
            range(len(tensors)),
            lambda place: (tensors[place].accumulated.shape, tensors[place].parameters),
            lambda place: max(tensors[place].accumulated.numel(), tensors[place].accumulated.shape[1] ** 2),
        )
        for group in groups:
            own = [tensors[place] for place in group]
            found.update(zip(group, self.read_together([_moments(one) for one in own], own), strict=True))
        return [found[place] for place in range(len(tensors))]


def _moments(tensor: ReadInput[Any]) -> Moments:
    parts = tensor.parts
    gram = unpack_triangle(parts[GRAM], tensor.accumulated.shape[1])
    return Moments(tensor.accumulated, parts[PRODUCTS], gram, float(parts[SUM_OF_WEIGHTS]))


def _unit(tensor: TensorInput[MomentParameters], norm: float) -> torch.Tensor:
    """Return τ / |τ| in the precision of the products."""
    unit = tensor.task_vector / norm
    return unit.to(torch.float32) if tensor.parameters.precision == "float32" else unit


def _products(units: Sequence[torch.Tensor]) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Return u^T u and u u^T u of each matrix; several of one shape are multiplied in one call."""
    unit = units[0][None] if len(units) == 1 else torch.stack(list(units))
    rows, columns = unit.shape[-2:]
    square = unit.mT @ unit
    product = unit @ square if rows >= columns else (unit @ unit.mT) @ unit
    return square.unbind(), product.unbind()
