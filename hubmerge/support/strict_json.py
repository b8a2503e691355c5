"""Reader of JSON from strangers: one text has one meaning, and nothing in it overflows a later step.

Refused beside what is no JSON: repeated keys, NaN and infinity, numbers that no float64 holds, deep nesting, and text
that is no Unicode.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
"""Deepest nesting of lists and objects."""

MAX_INTEGER = 1 << 63
"""Integers of this size and above are refused."""


class StrictJSONError(ValueError):
    """Error for a text that is not JSON, or JSON that is not accepted here; the message is the cause."""


def read_strict_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text, as bytes in UTF-8.

    Raises:
        StrictJSONError: the text is not accepted.

    >>> read_strict_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(
            decoded,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
        decoded.encode("utf-8")
    except StrictJSONError:
        raise
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeError as error:
        raise StrictJSONError("not UTF-8 text") from error
    except ValueError as error:
        raise StrictJSONError(f"not JSON: {error}") from error
    _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise StrictJSONError(f"the key {repeated!r} is repeated")
    return found


def _refuse_constant(text: str) -> Any:
    raise StrictJSONError(f"{text} is not a number of JSON")


def _integer(text: str) -> int:
    # Python converts integers of more than 4300 digits slowly, so it refuses them.
    value = int(text) if len(text) <= 20 else MAX_INTEGER
    if abs(value) >= MAX_INTEGER:
        raise StrictJSONError(f"the integer {text[:20]}... is too large" if len(text) > 20 else f"{text} is too large")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictJSONError(f"the number {text[:20]} is too large")
    return value


def _check(value: Any) -> None:
    """Check depth and characters, without recursion."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [*one, *one.values()]
            elif isinstance(one, list):
                inner += one
            elif isinstance(one, str):
                _check_text(one)
        if not inner:
            return
        level = inner
    raise _too_deep()


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise StrictJSONError(f"the text {text[:20]!r} has half of a surrogate pair") from error


def _too_deep() -> StrictJSONError:
    return StrictJSONError(f"lists and objects are nested more than {MAX_DEPTH} deep")
