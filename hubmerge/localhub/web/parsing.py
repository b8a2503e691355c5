"""Strict reading of JSON and numbers from requests."""

from __future__ import annotations

import base64
import re
from typing import Any

from hubmerge.localhub.refusals import BadRequest
from hubmerge.support.strict_json import read_strict_json

MAX_CONTAINERS = 20_000
MAX_VALUES = 200_000

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,18}")


def parse_number(text: str | None) -> int | None:
    """Return a number of at most 18 decimal digits, or None for other text."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text.

    The number of values is checked before anything is built, so the value takes little more memory than the text.

    Raises:
        BadRequest: the text is not accepted by `read_strict_json`, or has too many values.
    """
    try:
        text = raw.decode()
        structure = _STRING.sub("", text)
        if structure.count("{") + structure.count("[") > MAX_CONTAINERS or structure.count(",") > MAX_VALUES:
            raise ValueError("it has too many values")
        return read_strict_json(text)
    except ValueError as error:
        raise BadRequest(f"The JSON is not accepted: {error}") from error


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


def read_content(path: str, value: dict[str, Any]) -> bytes:
    """Return the content of a regular file: text, or base64 if `encoding` says so."""
    if value.get("encoding") != "base64":
        return str(value["content"]).encode()
    try:
        return base64.b64decode(value["content"], validate=True)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"The content of {path} is not base64: {error}.") from error
