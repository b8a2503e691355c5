"""Reference of the recipe's keys and of the methods' parameters, generated from the JSON Schema of recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
_TITLES = {
    "StreamEntry": "An entry of `models`",
    "ModelQuery": "A query in `models`",
    "ModelCollection": "A collection in `models`",
    "TensorRules": "`tensors`",
    "Evaluate": "`evaluate`",
    "Task": "A task",
    "IncludedTask": "Tasks from another file",
    "DatasetReference": "`dataset`",
    "MoreData": "`more` of `dataset`",
    "Publish": "`publish`",
}


def page(root: Path) -> str:
    """Return the page in Markdown; `root` is the folder that holds recipes/schema.json."""
    schema: Schema = json.loads((root / "recipes" / "schema.json").read_text(encoding="utf-8"))
    lines = [
        "# Keys of a recipe",
        "",
        "Every key, as `hubmerge schema` prints them. [The recipe language](../recipes.md) explains them.",
        "",
        "## Top level",
        "",
        *_table(schema),
    ]
    for name, definition in schema["$defs"].items():
        lines += [f"## {_TITLES.get(name, name)}", "", definition.get("description", ""), "", *_table(definition)]
    lines += ["## Parameters of the methods", "", "Under `parameters`; [methods](../methods.md) explains them.", ""]
    for rule in schema["allOf"]:
        lines += _method(rule)
    return "\n".join(lines)


def _method(rule: Schema) -> list[str]:
    named = rule.get("if", {}).get("properties", {}).get("merge_method", {}).get("const")
    if named is None:
        return []
    parameters = rule["then"]["properties"].get("parameters", {})
    if not parameters.get("properties"):
        return [f"### {named}", "", "No parameters.", ""]
    return [f"### {named}", "", *_table(parameters)]


def _table(schema: Schema) -> list[str]:
    rows = ["| key | values | default | meaning |", "| :--- | :--- | :--- | :--- |"]
    required = set(schema.get("required", ()))
    for key, value in schema.get("properties", {}).items():
        default = "required" if key in required else _default(value)
        rows.append(f"| `{key}` | {_values(value)} | {default} | {_cell(value.get('description', ''))} |")
    return [*rows, ""]


def _default(value: Schema) -> str:
    default = value.get("default")
    return "" if default is None or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _values(value: Schema) -> str:
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "$ref" in value:
        return f"[mapping](#{_anchor(value['$ref'].rsplit('/', 1)[1])})"
    if value.get("type") == "array":
        return f"list of {_values(value.get('items', {}))}"
    options = value.get("oneOf") or value.get("anyOf")
    if options:
        return ", ".join(dict.fromkeys(told for told in map(_values, options) if told != "null"))
    kinds = value.get("type", "any value")
    told = kinds if isinstance(kinds, str) else ", ".join(kinds)
    return {"object": "mapping"}.get(told, told) + _bounds(value)


def _bounds(value: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{sign} {value[key]}" for key, sign in signs.items() if key in value]
    return f" {', '.join(told)}" if told else ""


def _anchor(name: str) -> str:
    return _TITLES.get(name, name).lower().replace("`", "").replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")
