"""Values in mergekit's recipes that mergekit converts: references as mappings, quoted numbers, and empty keys.

The values keep their places in the document. A converted number has a remark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from merge_recipes.errors import KeyPath, Problem, format_value
from merge_recipes.mergekit import INTEGERS, OTHER_METHODS, PARAMETERS, SWITCHES
from merge_recipes.mergekit_references import ReferenceReader, Stages
from merge_recipes.read_yaml import Document

_EMPTY = frozenset(
    {
        *("base_model", "chat_template", "dtype", "models", "modules", "out_dtype", "parameters", "slices"),
        *("tokenizer", "tokenizer_source"),
    }
)
"""Top-level keys that mergekit reads as missing if they are empty."""

_INNER_EMPTY = frozenset({"base_model", "models", "parameters", "residual_weight", "slices"})
"""Keys of models, slices and modules that mergekit reads as missing if they are empty."""

_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (bool, float, int)}
"""mergekit converts values by pydantic's rules."""


@dataclass(frozen=True)
class ConvertedDocument:
    """A document with converted values.

    Attributes:
        document: the document.
        problems: references that cannot be read.
        notes: remarks on converted values.
        used: the stages that the document refers to, each with the key path of its first use.
    """

    document: Document
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]
    used: Mapping[str, KeyPath]


def convert_values(document: Document, stages: Stages | None = None) -> ConvertedDocument:
    """Return a recipe's document with the values that mergekit converts.

    Args:
        document: the document, whose data must be a mapping.
        stages: the documents of its file; None if it is the only one.
    """
    references = ReferenceReader(document, stages)
    conversion = _Conversion(document, references)
    data = conversion.recipe(document.data)
    notes = tuple(conversion.notes)
    return ConvertedDocument(replace(document, data=data), tuple(references.problems), notes, references.used)


@dataclass
class _Conversion:
    document: Document
    references: ReferenceReader
    notes: list[Problem] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    """The parameters of the recipe's method in mergekit; empty for other methods."""

    def recipe(self, data: dict[str, Any]) -> dict[str, Any]:
        method = data.get("merge_method")
        if isinstance(method, str) and method in OTHER_METHODS:
            self.known = PARAMETERS[method].whole | PARAMETERS[method].model
            data = _without(data, _EMPTY)
        found = self.level(data, ())
        for key in ("base_model", "tokenizer_source"):
            if key in found and found[key] not in ("union", "base"):
                found[key] = self.references.text(found[key], (key,))
        if isinstance(found.get("tokenizer"), dict):
            found["tokenizer"] = self.tokenizer(found["tokenizer"])
        return found

    def tokenizer(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the key `tokenizer` with references as text."""
        found, tokens = dict(data), data.get("tokens")
        if found.get("source", "base") not in ("union", "base"):
            found["source"] = self.references.text(found["source"], ("tokenizer", "source"))
        if isinstance(tokens, dict):
            found["tokens"] = {name: self.token(value, ("tokenizer", "tokens", name)) for name, value in tokens.items()}
        return found

    def token(self, value: Any, path: KeyPath) -> Any:
        """Return a token of the key `tokenizer` with references as text."""
        source = value.get("source") if isinstance(value, dict) else None
        if isinstance(source, dict) and "kind" in source:
            model = source.get("model")
            found = (
                source
                if model is None
                else {**source, "model": self.references.text(model, (*path, "source", "model"))}
            )
        elif source is not None:
            found = self.references.text(source, (*path, "source"))
        else:
            return value
        return {**value, "source": found}

    def level(self, data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Return the whole recipe, a module or a slice with converted values."""
        found = _without(data, _INNER_EMPTY) if path and self.known else dict(data)
        if path and "base_model" in found:
            found["base_model"] = self.references.text(found["base_model"], (*path, "base_model"))
        for key in ("slices", "models", "sources"):
            if isinstance(found.get(key), list):
                inner = self.level if key == "slices" else self.model
                found[key] = [
                    inner(item, (*path, key, index)) if isinstance(item, dict) else item
                    for index, item in enumerate(found[key])
                ]
        if isinstance(found.get("modules"), dict):
            found["modules"] = {
                name: self.level(module, (*path, "modules", name)) if isinstance(module, dict) else module
                for name, module in found["modules"].items()
            }
        return self.with_parameters(found, path)

    def model(self, data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        """Return a model, or a source of a slice, with converted values."""
        found = self.with_parameters(_without(data, _INNER_EMPTY) if self.known else dict(data), path)
        if "model" in found:
            found["model"] = self.references.text(found["model"], (*path, "model"))
        if self.known and isinstance(found.get("layer_range"), list):
            place = (*path, "layer_range")
            found["layer_range"] = [
                self.converted(end, (*place, index), int) for index, end in enumerate(found["layer_range"])
            ]
        return found

    def with_parameters(self, data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
        parameters = data.get("parameters")
        if not isinstance(parameters, dict):
            return data
        found = {
            name: self.parameter(value, (*path, "parameters", name), _type_of(name)) if name in self.known else value
            for name, value in parameters.items()
        }
        return {**data, "parameters": found}

    def parameter(self, value: Any, path: KeyPath, kind: type) -> Any:
        """Return the value of a parameter: one value, a gradient, a filter or a list of filters."""
        if isinstance(value, list):
            return [self.parameter(item, (*path, index), kind) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return self.converted(value, path, kind)
        found = {key: item for key, item in value.items() if key != "filter" or item is not None}
        if "value" in found:
            found["value"] = self.parameter(found["value"], (*path, "value"), kind)
        return found

    def converted(self, value: Any, path: KeyPath, kind: type) -> Any:
        """Return a value as mergekit reads it, with a remark if it is of another type in the file."""
        if value is None or _is_of(value, kind) or not self.is_read_alike(value, path):
            return value
        try:
            found = _ADAPTERS[kind].validate_python(value)
        except ValidationError:
            return value
        if kind is float and not math.isfinite(found):
            return value
        if kind is not bool or isinstance(value, str):
            meaning = str(found).lower() if kind is bool else f"the number {found:g}"
            message = f"{format_value(value)} is read as {meaning}, as in mergekit"
            self.notes.append(self.document.problem(path, message))
        return found

    def is_read_alike(self, value: Any, path: KeyPath) -> bool:
        """Return False for text without quotes that mergekit's reader does not read as text, such as 012 or 1:30."""
        plain = self.document.marks.plain.get(path)
        if plain is None or not isinstance(value, str):
            return True
        try:
            return isinstance(yaml.safe_load(plain), str)
        except (yaml.YAMLError, ValueError):
            return False


def _type_of(name: str) -> type:
    if name in SWITCHES:
        return bool
    return int if name in INTEGERS else float


def _is_of(value: Any, kind: type) -> bool:
    """Return True if a value has a type without conversion; a whole number is a number too."""
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)


def _without(data: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return dict(_filled(data, keys))


def _filled(data: dict[str, Any], keys: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield the items of a mapping without those of `keys` that are empty."""
    for key, value in data.items():
        if value is not None or key not in keys:
            yield key, value
