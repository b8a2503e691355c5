"""Parameters of merge methods: one value each, or one value per tensor by mergekit's filter lists.

A method declares its parameters as a pydantic class. The value of a field marked with `PerTensor` can depend on the
tensor and on the entry of the stream:

    class Parameters(BaseModel):
        alpha: Annotated[float, PerTensor(), Field(ge=0, le=1)] = 0.5

    parameters:
      alpha:
        - {filter: attn, value: 0.7}
        - {value: [0.2, 0.8]}        # 0.2 in the first layer, 0.8 in the last one
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from merge_recipes.errors import Problem, RecipeError, key_text
from merge_recipes.gradients import interpolated, is_gradient
from merge_recipes.schema import Recipe, StreamEntry

ParametersT = TypeVar("ParametersT", bound=BaseModel)


@dataclass(frozen=True)
class PerTensor:
    """Marker of a parameter whose value can depend on the tensor: `Annotated[float, PerTensor()]`.

    Attributes:
        entries: True if the value can depend on the entry of the stream too.
    """

    entries: bool = True


def parameter_fields(parameters_class: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a parameters class by their names in recipes: the alias, or the name of the field."""
    return {field.alias or name: field for name, field in parameters_class.model_fields.items()}


def is_per_tensor(field: FieldInfo) -> bool:
    """Return True if a field has the marker `PerTensor`."""
    return any(isinstance(mark, PerTensor) or mark is PerTensor for mark in field.metadata)


def is_per_entry(field: FieldInfo) -> bool:
    """Return True if an entry of the stream can have its own value of a field."""
    return any(mark is PerTensor or (isinstance(mark, PerTensor) and mark.entries) for mark in field.metadata)


def selects_every_tensor(item: Mapping[str, Any]) -> bool:
    """Return True if an item of a filter list applies to every tensor."""
    return item.get("filter") in {None, "*"}


def selected(value: Any, tensor_name: str) -> tuple[bool, Any]:
    """Return whether a value applies to a tensor, and the value of the first item whose filter is in the name.

    The value can be a gradient.
    """
    if not isinstance(value, list) or is_gradient(value):
        return True, value
    for item in value:
        if selects_every_tensor(item) or item["filter"] in tensor_name:
            return True, item["value"]
    return False, None


def parameters_from(parameters_class: type[ParametersT], values: Mapping[str, Any]) -> ParametersT:
    """Return the parameters with the given plain values, which are not converted: `"0.5"` is not a number.

    Raises:
        pydantic.ValidationError: a value has the wrong type or is out of range.
    """
    return parameters_class.model_validate_json(json.dumps(dict(values)), strict=True)


class TensorParameters(Generic[ParametersT]):
    """The parameters for each tensor of one entry of the stream. Call the instance with the name of a tensor.

    The entry's parameters have precedence over the recipe's, and these over the defaults of the class. In a filter
    list the first matching item is used; if none matches, the next level is used. Tensors with equal values share one
    instance of the parameters class.

    Args:
        parameters_class: the parameters class of the merge method.
        recipe: the recipe.
        entry: the entry of the stream; None for the parameters of the whole merge.
        positions: returns the position of a tensor in the layers, see `LayerPositions`. Gradients need it.
    """

    def __init__(
        self,
        parameters_class: type[ParametersT],
        recipe: Recipe,
        entry: StreamEntry | None = None,
        positions: Callable[[str], float] | None = None,
    ) -> None:
        self._class = parameters_class
        self._positions = positions
        self._levels = [recipe.parameters] if entry is None else [entry.parameters, recipe.parameters]
        self._instances: dict[str, ParametersT] = {}

    def __call__(self, tensor_name: str) -> ParametersT:
        """Return the parameters for a tensor.

        Raises:
            RecipeError: a value has the wrong type or is out of range.
            ValueError: a value is a gradient, and there are no positions.
        """
        values: dict[str, Any] = {}
        for level in self._levels:
            for key, value in level.items():
                if key not in values:
                    found, chosen = selected(value, tensor_name)
                    if found:
                        values[key] = self._at_layer(chosen, tensor_name) if is_gradient(chosen) else chosen
        text = json.dumps(values, sort_keys=True)
        if text not in self._instances:
            self._instances[text] = self._make(values, tensor_name)
        return self._instances[text]

    def _at_layer(self, gradient: list[float], tensor_name: str) -> float:
        if self._positions is None and tensor_name:
            raise ValueError(f"the parameters of {tensor_name} change over the layers: positions are needed")
        return interpolated(gradient, 0.0 if self._positions is None else self._positions(tensor_name))

    def _make(self, values: Mapping[str, Any], tensor_name: str) -> ParametersT:
        try:
            return parameters_from(self._class, values)
        except ValidationError as error:
            raise RecipeError(
                [
                    Problem(
                        f"{details['msg']}, for tensor {tensor_name}", key=key_text(("parameters", *details["loc"]))
                    )
                    for details in error.errors(include_url=False)
                ]
            ) from None


def parameters_for(
    parameters_class: type[ParametersT], recipe: Recipe, entry: StreamEntry | None = None, tensor_name: str = ""
) -> ParametersT:
    """Return the parameters for one tensor of one entry.

    For many tensors of one entry, use one `TensorParameters`.

    Args:
        parameters_class: the parameters class of the merge method.
        recipe: the recipe.
        entry: the entry of the stream; None for the parameters of the whole merge.
        tensor_name: the name of the tensor; empty for the parameters of the whole merge.

    Raises:
        RecipeError: a value has the wrong type or is out of range.
    """
    return TensorParameters(parameters_class, recipe, entry)(tensor_name)
