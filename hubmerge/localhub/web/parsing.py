"""Strict reading of JSON and numbers from requests."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hubmerge.localhub.refusals import BadRequest

MAX_DEPTH = 100
MAX_CONTAINERS = 20_000
MAX_VALUES = 200_000

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER = re.compile(r"[0-9]{1,18}")


def parse_number(text: str | None) -> int | None:
    """Return a number of at most 18 decimal digits, or None for other text."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    The structure is checked before anything is built, so the value takes little more memory than the text.

    Raises:
        BadRequest: the text is not JSON in UTF-8, is nested too deep, has too many values, numbers that are not finite,
            or text that is not Unicode.
    """
    try:
        text = raw.decode()
        _check_structure(_STRING.sub("", text))
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise BadRequest(f"The text is not valid JSON: {error}") from error
    return value


def _check_structure(structure: str) -> None:
    """Raise ValueError if JSON without its strings has too many brackets or commas, or too deep brackets."""
    if structure.count("{") + structure.count("[") > MAX_CONTAINERS or structure.count(",") > MAX_VALUES:
        raise ValueError("it has too many values")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", structure):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _parse_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def is_size(value: object) -> bool:
    """Return True if a JSON value is a size in bytes."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def object_list(data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a field that is a list of JSON objects; a missing field is an empty list.

    Raises:
        BadRequest: the field is something else.
    """
    value = data.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRequest(f"Expected `{name}` to be a list of objects.")
    return value


def optional_text(data: dict[str, Any], name: str) -> str | None:
    """Return a field that is text, or None if it is missing or null.

    Raises:
        BadRequest: the field is something else.
    """
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"Expected `{name}` to be text.")
    return value
