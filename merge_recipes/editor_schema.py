"""JSON Schema of recipes, with which editors complete and explain keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from merge_recipes.catalog import Catalog
from merge_recipes.include import INCLUDE
from merge_recipes.joint_form import JointCatalog
from merge_recipes.key_texts import key_texts
from merge_recipes.parameters import is_per_entry, is_per_tensor, parameter_fields
from merge_recipes.schema import Recipe

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(catalog: Catalog | None = None) -> dict[str, Any]:
    """Return the JSON Schema of recipes.

    Args:
        catalog: the installed methods and kinds of task; with it, the schema lists their names and parameters.
    """
    schema = Recipe.model_json_schema(schema_generator=_Generator)
    schema = {"$schema": _DIALECT, **schema, "title": "hubmerge recipe"}
    definitions = schema["$defs"]
    schema["required"].remove("base_model")  # some methods need none
    schema["required"].remove("models")
    schema["oneOf"] = [{"required": ["models"]}, {"required": ["slices"]}]
    del schema["properties"]["slices"]["default"]
    if catalog is not None:
        schema["properties"]["merge_method"]["enum"] = sorted(catalog.methods)
        definitions["Reading"]["properties"]["method"]["enum"] = sorted(catalog.methods)
        definitions["Task"]["properties"]["kind"]["enum"] = sorted(catalog.task_kinds)
        schema["allOf"] = [
            {
                "if": {"properties": {"merge_method": {"const": name}}, "required": ["merge_method"]},
                "then": {"properties": _method_properties([parameters_class, *_joint_class(catalog, name)])},
            }
            for name, parameters_class in sorted(catalog.methods.items())
        ]
    definitions["IncludedTask"] = _included_task(definitions["Task"])
    definitions["Evaluate"]["properties"]["tasks"]["items"] = {
        "anyOf": [{"$ref": "#/$defs/Task"}, {"$ref": "#/$defs/IncludedTask"}]
    }
    return schema


def _included_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a task in a separate file, where only `include` is required."""
    path = {"type": "string", "minLength": 1, "description": "A YAML file with the keys of one task."}
    described = {"description": "A task in a separate file.", "type": "object"}
    properties = {INCLUDE: path, **task["properties"]}
    return {**described, "properties": properties, "required": [INCLUDE], "additionalProperties": False}


class _Generator(GenerateJsonSchema):
    """pydantic's generator with the texts of keys, and without titles, which only repeat the keys."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a section, each key with the text below its attribute."""
        found = super().model_schema(schema)
        texts = key_texts(schema["cls"])
        for key, rule in found["properties"].items():
            if key in texts:
                rule["description"] = texts[key]
        return found


def _joint_class(catalog: Catalog, name: str) -> list[Any]:
    """Return the parameters class of a method's second form, if it has two."""
    if not isinstance(catalog, JointCatalog) or name not in catalog.joint or name not in catalog.streams:
        return []
    return [catalog.joint[name].Parameters]


def _method_properties(classes: Sequence[Any]) -> dict[str, Any]:
    top: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for parameters_class in classes:
        fields = parameter_fields(parameters_class)
        properties: dict[str, Any] = parameters_class.model_json_schema(schema_generator=_Generator)["properties"]
        per_tensor = {name: _or_filter_list(properties[name]) for name in fields if is_per_tensor(fields[name])}
        top |= {name: per_tensor.get(name, properties[name]) for name in fields}
        own |= {name: rule for name, rule in per_tensor.items() if is_per_entry(fields[name])}
    entry = {"properties": {"parameters": _closed(own)}}
    return {"parameters": _closed(top), "models": {"items": entry}}


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"properties": dict(properties), "additionalProperties": False}


def _or_filter_list(value: Mapping[str, Any]) -> dict[str, Any]:
    description = {key: text for key, text in value.items() if key in {"description", "default"}}
    single = {key: rule for key, rule in value.items() if key not in description}
    # A number can change over the layers: a list of numbers is a gradient.
    kinds = [single, *([{"type": "array", "minItems": 1, "items": single}] if _has_number(single) else [])]
    values = {"anyOf": kinds} if len(kinds) > 1 else single
    item = {"type": "object", "properties": {"value": values, "filter": {"type": "string"}}, "required": ["value"]}
    return {**description, "anyOf": [*kinds, {"type": "array", "items": item}]}


def _has_number(rule: Mapping[str, Any]) -> bool:
    kinds = [rule, *rule.get("anyOf", []), *rule.get("oneOf", [])]
    return any(kind.get("type") in {"number", "integer"} for kind in kinds)
