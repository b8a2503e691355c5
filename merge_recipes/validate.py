"""Plain data to frozen models; what pydantic finds becomes problems with a position and a way out."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from merge_recipes.errors import KeyPath, Problem, RecipeError, did_you_mean, nearest, shown
from merge_recipes.mergekit import OTHER_KEYS, REPLACES_MODELS
from merge_recipes.queries import COLLECTION, ENTRY, QUERY, ModelCollection, ModelQuery
from merge_recipes.read_yaml import Document
from merge_recipes.schema import StreamEntry
from merge_recipes.yaml_scalars import resolve_plain

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "string_type": "text",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "nothing",
}
_ITEMS: dict[int | str, type[BaseModel]] = {QUERY: ModelQuery, COLLECTION: ModelCollection, ENTRY: StreamEntry}
_REFERENCE_KEYS = ("model", "repo", "path")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}


def validate(model: type[Model], document: Document) -> tuple[Model | None, list[Problem]]:
    """Return the model made of the document's data, or None, and what is wrong with the data."""
    if not isinstance(document.data, dict):
        keys = ", ".join(name for name, field in model.model_fields.items() if field.is_required())
        got = "the file holds nothing" if document.data is None else f"got {shown(document.data)}"
        return None, [document.problem((), f"expected a mapping with the keys {keys}; {got}")]
    try:
        # Through JSON, because a list is then as good as a tuple while everything else stays strict.
        return model.model_validate_json(json.dumps(document.data)), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    guesses = {_guess(details, model) for details in found if details["type"] == "extra_forbidden"}
    kept = [details for details in found if not _follows_from_another(details, guesses)]
    return None, [told(details, model, document, ()) for details in kept]


def _keys(location: KeyPath) -> KeyPath:
    """Return a location without what is no key of the document: which kind of item of `models` was meant."""
    return tuple(part for part in location if part not in _ITEMS)


def _guess(details: ErrorDetails, model: type[BaseModel]) -> KeyPath | None:
    """Return the key that an unknown key was meant to be, or stands in place of."""
    *parent, key = details["loc"]
    if key in REPLACES_MODELS:
        return (*parent, "models")
    match = nearest(str(key), _known_keys(model, tuple(parent)))
    return None if match is None else (*parent, match)


def _follows_from_another(details: ErrorDetails, guesses: set[KeyPath | None]) -> bool:
    if details["type"] == "missing":
        return details["loc"] in guesses
    # A list counts as too short once its items are refused.
    return details["type"] == "too_short" and bool(details["input"])


def _known_keys(model: type[BaseModel], location: KeyPath) -> tuple[str, ...]:
    known = _model_at(model, location)
    return () if known is None else tuple(known.model_fields)


def told(details: ErrorDetails, model: type[BaseModel], document: Document, path: KeyPath) -> Problem:
    """Return what pydantic found as a problem; `path` is where the validated data stands in the document."""
    location: KeyPath = (*path, *_keys(details["loc"]))
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location, details["loc"], model, document)
    if kind == "missing":
        meaning = _meaning(model, details["loc"])
        return document.problem(location, f"this key is required{meaning}")
    message, hint = value_message(details, document.marks.plain.get(location))
    if kind == "string_pattern_mismatch" and location not in document.marks.values:
        hint = f"give it a name of its own: `{location[-1]}: ...`"
    if kind in {"model_type", "model_attributes_type"}:
        hint = _reference_hint(_model_at(model, details["loc"]), details["input"])
    return document.problem(location, message, hint)


def _unknown_key(location: KeyPath, inner: KeyPath, model: type[BaseModel], document: Document) -> Problem:
    key = str(location[-1])
    if key in OTHER_KEYS:
        return document.problem(location, OTHER_KEYS[key], at_key=True)
    names = _known_keys(model, inner[:-1])
    return document.problem(location, f"unknown key{did_you_mean(key, names)}", at_key=True)


def _meaning(model: type[BaseModel], location: KeyPath) -> str:
    parent = _model_at(model, location[:-1])
    field = None if parent is None else parent.model_fields.get(str(location[-1]))
    if field is None or not field.description:
        return ""
    first_sentence = field.description.split(". ")[0].strip().rstrip(".")
    return f": {first_sentence[0].lower()}{first_sentence[1:]}"


def _model_at(model: type[BaseModel], location: KeyPath) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        if part in _ITEMS:
            current = _ITEMS[part]
            continue
        field = current.model_fields.get(part)
        current = None if field is None else _model_in(field.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def _reference_hint(part: type[BaseModel] | None, value: object) -> str | None:
    """Return where a reference goes that stands in place of a mapping, if it goes anywhere there."""
    if part is None or not isinstance(value, str) or "/" not in value:
        return None
    fields = part.model_fields
    key = next((name for name in _REFERENCE_KEYS if name in fields and fields[name].is_required()), None)
    return None if key is None else f"a reference goes under a key, for example `{key}: {value[:60]}`"


def number_or_word(model: type[BaseModel], key: str) -> str | None:
    """Return "a number between 0 and 1, or auto" for a key that takes a number or a word, None for any other."""
    schema = model.model_json_schema().get("properties", {}).get(key, {})
    kinds = schema.get("oneOf") or schema.get("anyOf") or []
    number = next((kind for kind in kinds if kind.get("type") == "number"), None)
    words = [str(word) for kind in kinds for word in kind.get("enum", [kind[key] for key in ("const",) if key in kind])]
    if number is None or not words:
        return None
    both = "minimum" in number and "maximum" in number
    between = f" between {number['minimum']:g} and {number['maximum']:g}" if both else ""
    return f"a number{between}, or {' or '.join(words)}"


def value_message(
    details: ErrorDetails, plain: str | None, *, alternatives: str | None = None
) -> tuple[str, str | None]:
    """Return the sentence and the hint for a value; `plain` is how it was written, if without quotes.

    `alternatives` tells what is expected where that is a number or one of some words.
    """
    kind, value = details["type"], details["input"]
    context = details.get("ctx", {})
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_as_written(value, plain)}", _type_hint(kind, value, plain)
    if kind in {"literal_error", "enum"}:
        choices = [choice.strip("'") for choice in str(context["expected"]).replace(" or ", ", ").split(", ")]
        if alternatives is not None:
            word = nearest(value, choices) if isinstance(value, str) else None
            hint = _type_hint("float_type", value, plain) or (f"did you mean {word}?" if word else None)
            return f"expected {alternatives}; got {_as_written(value, plain)}", hint
        guess = did_you_mean(value, choices) if isinstance(value, str) else ""
        known = f" (expected one of: {', '.join(choices)})" if "did you mean" in guess else ""
        return f"{_as_written(value, plain)} is not one of the choices{guess or known}{known if guess else ''}", None
    for name, comparison in _COMPARISONS.items():
        if name in context and not isinstance(value, str):
            return f"expected a number {comparison} {shown(context[name])}, got {_as_written(value, plain)}", None
    if kind == "string_pattern_mismatch":
        expected = "letters, digits, '.', '_' and '-', starting with a letter or a digit"
        return f"{shown(value)} is not a name: expected {expected}", None
    if kind in {"too_short", "string_too_short"}:
        return ("the text is empty" if isinstance(value, str) else "the list is empty: expected at least one"), None
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters, got {len(value)}", None
    error = context.get("error")
    if isinstance(error, RecipeError):
        return error.problems[0].message, error.problems[0].hint
    return str(error) if error is not None else f"{details['msg']}, got {_as_written(value, plain)}", None


def _as_written(value: object, plain: str | None) -> str:
    if isinstance(value, bool) and plain is not None and plain.lower() not in {"true", "false"}:
        return f"{plain}, which YAML reads as {shown(value)}"
    if isinstance(value, bool):
        return shown(value)
    if isinstance(value, int | float):
        return f"the number {plain if plain is not None else value}"[:80]
    if value is None:
        return "nothing (the value is empty)"
    return f"the text {shown(value)}" if isinstance(value, str) else shown(value)


def _type_hint(kind: str, value: object, plain: str | None) -> str | None:
    if kind == "string_type" and isinstance(value, bool | int | float) and plain is not None:
        return f'put it in quotes: "{plain[:60]}"'
    if kind == "string_type" and isinstance(value, list):
        return "write one value, not a list"
    if kind in {"tuple_type", "list_type"} and isinstance(value, str):
        return "write it as a list: [...]"
    if kind == "float_type" and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return f"write it with a point{'' if plain is not None else ', without quotes'}: {value.replace(',', '.')[:60]}"
    if isinstance(value, str) and plain is None and _expects(kind, value):
        return f"write it without quotes: {value}"
    return None


def _expects(kind: str, text: str) -> bool:
    """Tell whether a quoted text would be what is expected, were it not in quotes."""
    types = {"float_type": (int, float), "int_type": (int,), "bool_type": (bool,)}.get(kind)
    try:
        value = resolve_plain(text)
    except ValueError:
        return False
    return types is not None and isinstance(value, types) and isinstance(value, bool) == (kind == "bool_type")
