"""Types of the values in a recipe: references, names, prompts, parameters and sizes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from merge_recipes.errors import format_value
from merge_recipes.record import Text
from merge_recipes.references import ModelReference

MAX_NAME_CHARACTERS = 96
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_SIZE = re.compile(r"(?P<number>[0-9]{1,6}(?:\.[0-9]{1,6})?) ?(?P<unit>[KMGT]i?B)")
_UNITS = {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}

_REFERENCE_FORM = (
    "A model: owner/name or owner/name/subfolder on the Hub, with an optional @revision and an optional +adapter (a "
    "LoRA repo, with its own @revision), or a local folder that starts with ./, ../, / or ~; ./ is the recipe's folder."
)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "expected text")
    return value


def reference_of(value: object) -> ModelReference:
    """Return a text as a reference; a reference is returned unchanged."""
    return value if isinstance(value, ModelReference) else ModelReference.parse(_text(value))


def _prompt(template: str) -> str:
    rest = template.replace("{}", "")
    if "{}" not in template or "{" in rest or "}" in rest:
        raise ValueError(f"expected {{}} in place of the class name and no other braces, got {format_value(template)}")
    return template


def without_default(schema: dict[str, Any]) -> None:
    """Remove the default from the JSON Schema of a field."""
    schema.pop("default", None)


def _empty_if_none(value: object) -> object:
    return {} if value is None else value


Reference = Annotated[
    ModelReference,
    PlainValidator(reference_of),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "minLength": 1, "description": _REFERENCE_FORM}),
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_CHARACTERS)]
Prompt = Annotated[Text, AfterValidator(_prompt)]
DType = Literal["float32", "float16", "bfloat16", "float64"]

_NUMBER = {"type": ["number", "boolean", "string"]}
_GRADIENT = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "number"},
    "description": "A gradient: numbers spread evenly from the first layer to the last one.",
}
_PARAMETERS_SCHEMA: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {
        "anyOf": [
            _NUMBER,
            _GRADIENT,
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "value": {
                            "anyOf": [_NUMBER, _GRADIENT],
                            "description": "The value for the tensors that the filter selects.",
                        },
                        "filter": {
                            "type": "string",
                            "minLength": 1,
                            "description": "A part of tensor names; * or no filter selects every tensor.",
                        },
                    },
                    "required": ["value"],
                    "additionalProperties": False,
                },
            },
        ]
    },
}
Parameters = Annotated[dict[str, JsonValue], BeforeValidator(_empty_if_none), WithJsonSchema(_PARAMETERS_SCHEMA)]


def parse_size(size: str) -> int:
    """Return the number of bytes of a size such as `5GB`.

    Raises:
        ValueError: the text is not a number with a unit.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"{size[:40]!r} is not a size: expected a number and a unit, for example 5GB or 512MiB")
    return int(float(match["number"]) * _UNITS[match["unit"]])
