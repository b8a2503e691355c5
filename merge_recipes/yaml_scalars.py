"""Values of scalars without quotes, close to YAML 1.1, which mergekit uses.

`yes`, `no`, `on` and `off` are true and false, as in YAML 1.1. Different from YAML 1.1, `1e-3` is a number, a date is
text, and `012` is text and not the number 10.
"""

from __future__ import annotations

import math
import re

_TRUE = frozenset({"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+)")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)"
)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_FORBIDDEN_CHARACTER = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BASES = {"0x": 16, "0o": 8, "0b": 2}
_INTEGER_LIMIT = 2**63
_MAX_NUMBER_CHARACTERS = 400

Scalar = str | int | float | bool | None
"""A value that is not a list or a mapping."""


def has_forbidden_character(text: str) -> bool:
    """Return True if a text contains a control character, a line separator or half a surrogate pair."""
    return _FORBIDDEN_CHARACTER.search(text) is not None


def resolve_plain(text: str) -> Scalar:
    """Return the value of a scalar without quotes.

    Raises:
        ValueError: a number is not finite, or does not fit in 64 bits.
    """
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) > _MAX_NUMBER_CHARACTERS:
        return text
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        number = int(digits, _BASES.get(digits.lstrip("+-")[:2], 10))
        if abs(number) >= _INTEGER_LIMIT:
            raise ValueError(f"the number {_cut(text)} does not fit in 64 bits")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    if _FLOAT.fullmatch(text):
        value = float(text.replace("_", ""))
        if not math.isfinite(value):
            raise ValueError(f"the number {_cut(text)} is too large")
        return value
    return text


def _cut(text: str) -> str:
    return text if len(text) <= 24 else text[:24] + "..."
