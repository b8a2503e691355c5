"""Base class of joint merge methods: all models at once, tensor by tensor, without a state.

    merged tensor = merge(base, tensors, parameters)

A fold merges one checkpoint after another and saves a state between them; a joint method has all inputs in front of it
and returns the merged tensor itself. It is arithmetic on tensors. Files, devices, threads and publishing are not its
business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from hubmerge.methods.base import MethodParameters, NoParameters
from hubmerge.support.lazy import torch

ParametersT_co = TypeVar("ParametersT_co", covariant=True)

BasePolicy = Literal["required", "optional", "model"]
Blocks = Literal["tensor", "rows", "elements"]


@dataclass(frozen=True)
class JointParameters(Generic[ParametersT_co]):
    """Parameters of a joint method for one tensor, or for one block of it.

    Attributes:
        whole: the parameters of the merge, without those of single models.
        models: the parameters of each model, in the order of the tensors.
        name: name of the tensor.
        is_matrix: True if the tensor is a weight matrix, or has the weight matrices of several experts.
        layer: number of the layer that the tensor belongs to, from 0; None outside the layers.
        layers: number of layers of the model.
        before_layers: True for a tensor outside the layers that comes before them in the model, such as an embedding.
        start: number of elements of the tensor before this block.
        survey: result of `JointMethod.survey` for this tensor.
        seed: seed of random methods.
        transposed: True if the weight matrices are stored as (inputs, outputs), as in GPT-2.
    """

    whole: ParametersT_co
    models: tuple[ParametersT_co, ...]
    name: str = ""
    is_matrix: bool = False
    layer: int | None = None
    layers: int = 0
    before_layers: bool = False
    start: int = 0
    survey: Any = None
    seed: int = 0
    transposed: bool = False


class TensorView(Protocol):
    """One tensor of all models, which a survey reads in blocks as often as it needs."""

    @property
    def count(self) -> int:
        """Number of models, without the base model."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        ...

    @property
    def elements(self) -> int:
        """Number of elements."""
        ...

    def blocks(self) -> Iterator[tuple[torch.Tensor | None, list[torch.Tensor]]]:
        """Yield base model and models block by block, as `merge` receives them."""
        ...

    def deltas(self, model: int) -> Iterator[torch.Tensor]:
        """Yield the blocks of one model minus the base model; without a base model, those of the model."""
        ...


class JointMethod(ABC):
    """A merge method that sees all models at once. Subclasses set `name`, `source`, `summary` and implement `merge`.

    Attributes:
        name: the name in recipes, `merge_method: NAME`.
        source: paper and equation.
        summary: one line for lists of methods.
        Parameters: the class of the parameters.
        base: the part of the base model. `required`: the origin of task vectors; it is not among the tensors, even if
            the recipe lists it. `optional`: so, if the recipe names one. `model`: none; it is merged like any other
            model where the recipe lists it.
        base_joins: the base model is merged like any other model where the recipe names it, listed or not.
        fewest: smallest number of models besides the origin.
        most: largest number of models besides the origin, None for any.
        blocks: what `merge` receives at one time. `elements`: flat pieces of a tensor, for methods that treat each
            element alone; these need little memory and are fastest. `rows`: matrices with some rows of the tensor,
            whose columns are its last dimension; a tensor with one dimension is one row. `tensor`: the tensor itself.
        copies: number of copies of a tensor in memory besides its blocks, for the memory estimate.
        order_free: the order of the models changes nothing but rounding, with any parameters.

    Example:
        >>> class Midpoint(JointMethod):
        ...     name, source, summary = "midpoint", "by definition", "mean of the smallest and the largest value"
        ...     base, blocks = "model", "elements"
        ...     def merge(self, base, tensors, parameters):
        ...         values = torch.stack(list(tensors))
        ...         return (values.amin(0) + values.amax(0)) / 2
        >>> models = [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([5.0])]
        >>> Midpoint().merge(None, models, JointParameters(NoParameters(), (NoParameters(),) * 3))
        tensor([3.])
    """

    name: str
    source: str
    summary: str
    Parameters: type[MethodParameters] = NoParameters
    base: BasePolicy = "required"
    base_joins: bool = False
    fewest: int = 1
    most: int | None = None
    blocks: Blocks = "tensor"
    copies: int = 0
    order_free: bool = True

    def variant_for(self, parameters: Any) -> JointMethod:
        """Return the variant of the method that the parameters of a tensor select; by default itself."""
        return self

    def survey(self, view: TensorView, parameters: JointParameters[Any]) -> Any:
        """Return facts about a whole tensor, such as norms or thresholds, that `merge` needs for its blocks."""
        return None

    @abstractmethod
    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the merged tensor, or the merged block.

        All tensors are float32, or float64 if the model is, and have one shape and one device. None may be changed in
        place.

        Args:
            base: the base model's tensor, None if the merge has no origin.
            tensors: those of the models, in the order of the recipe. With `blocks` of `tensor`, each is read from its
                file when it is asked for.
            parameters: the parameters for this tensor, and the facts of `survey`.
        """

    def statistic_weight(self, parameters: Any) -> float:
        """Return the weight of a model in the mean of statistics: its parameter `weight`, or 1."""
        weight = getattr(parameters, "weight", None)
        return float(weight) if isinstance(weight, (int, float)) else 1.0

    def prefers_joint(self, parameters: dict[str, Any]) -> bool:
        """Return True if top-level parameters of a recipe ask for this form where a fold has the name too.

        By default they do with a value for each tensor, which a fold has for parameters of an entry only.
        """
        return any(isinstance(parameters.get(name), (list, dict)) for name in ("lambda", "normalize", "rescale"))
