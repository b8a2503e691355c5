"""Frozen dataclasses that are written as JSON and read back without loss or conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from merge_recipes.errors import key_text

T = TypeVar("T")

Number = int | float
"""A number that keeps its type, because digests are taken over the written text: 1 and 1.0 differ."""

_NUMBERS = frozenset({"int", "float"})
"""Parts that pydantic adds to the path of a value that may be of several types."""

_MAPPINGS = frozenset({"dataclass_type", "dict_type"})


class RecordError(ValueError):
    """Error for a JSON text that is not the expected record; the message names the key.

    `unknown_key` is True if the record has a key that this version does not know.
    """

    def __init__(self, message: str, *, unknown_key: bool = False) -> None:
        super().__init__(message)
        self.unknown_key = unknown_key


def record(kind: type[T]) -> type[T]:
    """Mark a dataclass as a record: unknown keys are refused, values are not converted."""
    decorate: Callable[[type[T]], type[T]] = with_config(ConfigDict(extra="forbid", strict=True))
    return decorate(kind)


def read_record(adapter: TypeAdapter[T], text: str | bytes) -> T:
    """Return the record in a JSON text.

    Raises:
        RecordError: the text is not JSON, or not a record of this kind.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    unknown = next((problem for problem in problems if problem["type"] == "unexpected_keyword_argument"), None)
    raise RecordError(_message(unknown or problems[0]), unknown_key=unknown is not None)


def _message(problem: Any) -> str:
    *parents, key = problem["loc"] or ("",)
    kind, value = problem["type"], problem["input"]
    if kind == "json_invalid":
        return f"not JSON: {problem['ctx']['error']}"
    if kind == "unexpected_keyword_argument":
        return _at(parents, f"unknown key {key!r}")
    if kind == "missing":
        return _at(parents, f"the key {key!r} is missing")
    expected, path = problem["msg"].replace("Input should be", "expected"), problem["loc"]
    if kind in _MAPPINGS:
        expected = "expected a mapping"
    elif key in _NUMBERS:
        expected, path = "expected a number", parents
    return _at(path, f"{expected}, found {type(value).__name__}")


def _at(path: Any, message: str) -> str:
    return f"{key_text(tuple(path))}: {message}" if path else message
