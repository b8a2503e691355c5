"""Validation of plain data by pydantic models, with a position and a hint for each problem."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from merge_recipes.dataset import CLASSES, TYPE
from merge_recipes.errors import KeyPath, Problem, RecipeError, did_you_mean, format_value, nearest
from merge_recipes.key_texts import key_texts
from merge_recipes.language_task import DEFINITION, NAME
from merge_recipes.mergekit import OTHER_KEYS, REPLACES_MODELS
from merge_recipes.other_kinds import of_other_kind
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
_TAGS = frozenset({*_ITEMS, TYPE, CLASSES, NAME, DEFINITION})
"""Parts of a location that pydantic adds: they tell alternatives apart and are no keys of the document."""

_REFERENCE_KEYS = ("model", "repo", "path")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_TYPOGRAPHIC = re.compile("[\u00a0\u2009\u202f\u200b\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2212\uff1a]")
_COMPARISONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}


def validate(
    model: type[Model], document: Document, defaults: Mapping[str, Any] | None = None
) -> tuple[Model | None, list[Problem]]:
    """Return the document's data as a model, or None, and the problems of the data.

    Args:
        model: the class.
        document: the document.
        defaults: values of keys that the document does not have.
    """
    if not isinstance(document.data, dict):
        keys = ", ".join(name for name, field in model.model_fields.items() if field.is_required())
        got = "the file is empty" if document.data is None else f"got {format_value(document.data)}"
        return None, [document.problem((), f"expected a mapping with the keys {keys}; {got}")]
    other = of_other_kind(document, document.data, tuple(model.model_fields))
    if other is not None:
        return None, [other]
    try:
        # In JSON a list is valid for a tuple, while all other types stay strict.
        return model.model_validate_json(json.dumps({**(defaults or {}), **document.data})), []
    except ValidationError as error:
        found = error.errors(include_url=False)
    guesses = {_guess(details, model) for details in found if details["type"] == "extra_forbidden"}
    guesses |= {("models",)} if "slices" in document.data else set()  # models are those of the slices
    kept = [details for details in found if not _follows_from_another(details, guesses)]
    return None, [_problem(details, model, document) for details in kept]


def _keys(location: KeyPath) -> KeyPath:
    """Return a location without the tags of alternatives."""
    return tuple(part for part in location if part not in _TAGS)


def _guess(details: ErrorDetails, model: type[BaseModel]) -> KeyPath | None:
    """Return the key that an unknown key was probably meant to be, or replaces."""
    *parent, key = details["loc"]
    if key in REPLACES_MODELS:
        return (*parent, "models")
    match = nearest(str(key), _known_keys(model, tuple(parent)))
    return None if match is None else (*parent, match)


def _follows_from_another(details: ErrorDetails, guesses: set[KeyPath | None]) -> bool:
    if details["type"] == "missing":
        return details["loc"] in guesses
    # pydantic reports a list as too short if its items are invalid.
    return details["type"] == "too_short" and bool(details["input"])


def _known_keys(model: type[BaseModel], location: KeyPath) -> tuple[str, ...]:
    known = _model_at(model, location)
    return () if known is None else tuple(known.model_fields)


def _problem(details: ErrorDetails, model: type[BaseModel], document: Document) -> Problem:
    """Return an error of pydantic as a problem with its position."""
    location = _keys(details["loc"])
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(location, details["loc"], model, document)
    if kind == "missing":
        meaning = _meaning(model, details["loc"])
        return document.problem(location, f"this key is required{meaning}")
    message, hint = value_message(details, document.marks.plain.get(location))
    if kind == "string_pattern_mismatch" and location not in document.marks.values:
        hint = f"add `{location[-1]}: ...`, because the default is not a valid name"
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
    text = "" if parent is None else key_texts(parent).get(str(location[-1]), "")
    if not text:
        return ""
    first_sentence = text.split(". ")[0].strip().rstrip(".")
    return f": {first_sentence[0].lower()}{first_sentence[1:]}"


def _model_at(model: type[BaseModel], location: KeyPath) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    in_mapping = False
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        if in_mapping:  # a key that the user chose
            in_mapping = False
            continue
        if part in _ITEMS:
            current = _ITEMS[part]
            continue
        field = current.model_fields.get(part)
        current = None if field is None else _model_in(field.annotation)
        in_mapping = field is not None and _is_mapping(field.annotation)
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)


def _is_mapping(annotation: Any) -> bool:
    """Return True for a mapping, also an optional one, whose values are mappings with known keys."""
    found = annotation if get_origin(annotation) is dict else next(iter(get_args(annotation)), None)
    return get_origin(found) is dict


def _reference_hint(part: type[BaseModel] | None, value: object) -> str | None:
    """Return the hint for a reference that was written in place of a mapping, or None."""
    if part is None or not isinstance(value, str) or "/" not in value:
        return None
    fields = part.model_fields
    key = next((name for name in _REFERENCE_KEYS if name in fields and fields[name].is_required()), None)
    return None if key is None else f"write the reference under a key: `{key}: {value[:60]}`"


def number_or_word(model: type[BaseModel], key: str) -> str | None:
    """Return "a number between 0 and 1, or auto" for a key with a number or a word as value, else None."""
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
    """Return the message and the hint for a value that pydantic refused.

    Args:
        details: the error of pydantic.
        plain: the value as written, if it was written without quotes.
        alternatives: the expected values if they are a number or some words, see `number_or_word`.
    """
    kind, value = details["type"], details["input"]
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {_as_written(value, plain)}", _type_hint(kind, value, plain)
    if kind in {"literal_error", "enum"}:
        return _choice_message(details, plain, alternatives)
    return _range_message(details, plain) or _length_message(details) or _other_message(details, plain)


def _choice_message(details: ErrorDetails, plain: str | None, alternatives: str | None) -> tuple[str, str | None]:
    value = details["input"]
    choices = [choice.strip("'") for choice in str(details["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
    if alternatives is not None:
        word = nearest(value, choices) if isinstance(value, str) else None
        hint = _type_hint("float_type", value, plain) or (f"did you mean {word}?" if word else None)
        return f"expected {alternatives}; got {_as_written(value, plain)}", hint
    guess = did_you_mean(value, choices) if isinstance(value, str) else ""
    known = f" (expected one of: {', '.join(choices)})" if "did you mean" in guess else ""
    return f"{_as_written(value, plain)} is not one of the choices{guess or known}{known if guess else ''}", None


def _range_message(details: ErrorDetails, plain: str | None) -> tuple[str, str | None] | None:
    """Return the message if a number is out of range."""
    context, value = details.get("ctx", {}), details["input"]
    for name, comparison in _COMPARISONS.items():
        if name in context and not isinstance(value, str):
            limit = format_value(context[name])
            return f"expected a number {comparison} {limit}, got {_as_written(value, plain)}", None
    return None


def _length_message(details: ErrorDetails) -> tuple[str, str | None] | None:
    """Return the message if a text or a list has a wrong length or characters that are not allowed."""
    kind, value = details["type"], details["input"]
    if kind == "string_pattern_mismatch":
        expected = "letters, digits, '.', '_' and '-', starting with a letter or a digit"
        return f"{format_value(value)} is not a name: expected {expected}", None
    if kind in {"too_short", "string_too_short"}:
        return ("the text is empty" if isinstance(value, str) else "the list is empty: expected at least one"), None
    if kind == "string_too_long":
        return f"expected at most {details['ctx']['max_length']} characters, got {len(value)}", None
    return None


def _other_message(details: ErrorDetails, plain: str | None) -> tuple[str, str | None]:
    error = details.get("ctx", {}).get("error")
    if isinstance(error, RecipeError):
        return error.problems[0].message, error.problems[0].hint
    return str(error) if error is not None else f"{details['msg']}, got {_as_written(details['input'], plain)}", None


def _as_written(value: object, plain: str | None) -> str:
    if isinstance(value, bool) and plain is not None and plain.lower() not in {"true", "false"}:
        return f"{plain}, which YAML reads as {format_value(value)}"
    if isinstance(value, bool):
        return format_value(value)
    if isinstance(value, int | float):
        return f"the number {plain if plain is not None else value}"[:80]
    if value is None:
        return "nothing (the value is empty)"
    return f"the text {format_value(value)}" if isinstance(value, str) else format_value(value)


def _type_hint(kind: str, value: object, plain: str | None) -> str | None:
    if kind == "string_type" and isinstance(value, bool | int | float) and plain is not None:
        return f'put it in quotes: "{plain[:60]}"'
    if kind == "string_type" and isinstance(value, list):
        return "write one value, not a list"
    if kind in {"tuple_type", "list_type"} and isinstance(value, str):
        return "write it as a list: [...]"
    if kind == "float_type" and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return f"write it with a point{'' if plain is not None else ', without quotes'}: {value.replace(',', '.')[:60]}"
    if isinstance(value, str) and (special := _TYPOGRAPHIC.search(value)):
        return f"replace the {unicodedata.name(special[0]).lower()} by its plain form; text from web pages often has it"
    if isinstance(value, str) and plain is None and _expects(kind, value):
        return f"write it without quotes: {value}"
    return None


def _expects(kind: str, text: str) -> bool:
    """Return True if a quoted text would be valid without quotes."""
    types = {"float_type": (int, float), "int_type": (int,), "bool_type": (bool,)}.get(kind)
    try:
        value = resolve_plain(text)
    except ValueError:
        return False
    return types is not None and isinstance(value, types) and isinstance(value, bool) == (kind == "bool_type")
