"""Parameters of a merge method: one value each, or one per tensor through mergekit's filter list.

A method declares its parameters as a pydantic class. A field marked with `PerTensor` may differ between tensors and
between entries of the stream:

    class Parameters(BaseModel):
        alpha: Annotated[float, PerTensor(), Field(ge=0, le=1)] = 0.5

    parameters:
      alpha:
        - {filter: attn, value: 0.7}
        - {value: 0.5}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from merge_recipes.errors import Problem, RecipeError, key_text
from merge_recipes.schema import Recipe, StreamEntry

ParametersT = TypeVar("ParametersT", bound=BaseModel)


@dataclass(frozen=True)
class PerTensor:
    """Marks a parameter that may differ between tensors: `Annotated[float, PerTensor()]`."""


def parameter_fields(parameters_class: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a parameters class by the name that a recipe gives them (the alias, if there is one)."""
    return {field.alias or name: field for name, field in parameters_class.model_fields.items()}


def is_per_tensor(field: FieldInfo) -> bool:
    """Tell whether a field carries the `PerTensor` marker."""
    return any(isinstance(mark, PerTensor) or mark is PerTensor for mark in field.metadata)


def selects_every_tensor(item: Mapping[str, Any]) -> bool:
    """Tell whether an item of a filter list applies to every tensor."""
    return item.get("filter") in {None, "*"}


def selected(value: Any, tensor_name: str) -> tuple[bool, Any]:
    """Return whether `value` has something for the tensor, and what: the first item whose filter is in the name."""
    if not isinstance(value, list):
        return True, value
    for item in value:
        if selects_every_tensor(item) or item["filter"] in tensor_name:
            return True, item["value"]
    return False, None


def parameters_from(parameters_class: type[ParametersT], values: Mapping[str, Any]) -> ParametersT:
    """Return the parameters made of plain values, which are not converted: `"0.5"` is not a number.

    Raises:
        pydantic.ValidationError: if a value does not fit.
    """
    return parameters_class.model_validate_json(json.dumps(dict(values)), strict=True)


class TensorParameters(Generic[ParametersT]):
    """The parameters for each tensor of one entry of the stream: call it with the name of a tensor.

    Precedence: the entry's parameters, then the recipe's, then the defaults of the class; in a filter list the first
    item that fits, and where none fits the next level. Tensors with the same values share one instance.
    """

    def __init__(self, parameters_class: type[ParametersT], recipe: Recipe, entry: StreamEntry | None = None) -> None:
        self._class = parameters_class
        self._levels = [recipe.parameters] if entry is None else [entry.parameters, recipe.parameters]
        self._instances: dict[str, ParametersT] = {}

    def __call__(self, tensor_name: str) -> ParametersT:
        """Return the parameters for a tensor."""
        values: dict[str, Any] = {}
        for level in self._levels:
            for key, value in level.items():
                if key not in values:
                    found, chosen = selected(value, tensor_name)
                    if found:
                        values[key] = chosen
        text = json.dumps(values, sort_keys=True)
        if text not in self._instances:
            self._instances[text] = self._make(values, tensor_name)
        return self._instances[text]

    def _make(self, values: Mapping[str, Any], tensor_name: str) -> ParametersT:
        try:
            return parameters_from(self._class, values)
        except ValidationError as error:
            raise RecipeError(
                [
                    Problem(
                        f"{details['msg']}, for the tensor {tensor_name}", key=key_text(("parameters", *details["loc"]))
                    )
                    for details in error.errors(include_url=False)
                ]
            ) from None


def parameters_for(
    parameters_class: type[ParametersT], recipe: Recipe, entry: StreamEntry | None = None, tensor_name: str = ""
) -> ParametersT:
    """Return the parameters for one tensor of one entry; without them, those for the whole merge.

    For many tensors of one entry, keep a `TensorParameters` instead.
    """
    return TensorParameters(parameters_class, recipe, entry)(tensor_name)
