"""Canonical JSON: equal values give equal text, so that a digest of the text identifies the value."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    r"""Return compact JSON with sorted keys and ASCII characters; `1.0` is written as `1`.

    >>> canonical_json({"b": 1.0, "a": "é"})
    '{"a":"\\u00e9","b":1}'
    """
    return json.dumps(_without_integral_floats(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


class CanonicalText(str):
    """Text that `canonical_json` wrote, kept to be inserted again without the work."""

    __slots__ = ()


def canonical_json_with(value: Any) -> str:
    """Return what `canonical_json` returns, for a value that has parts of type `CanonicalText`.

    >>> canonical_json_with({"b": [CanonicalText('{"c":1}')], "a": 1.0})
    '{"a":1,"b":[{"c":1}]}'
    """
    if isinstance(value, CanonicalText):
        return value
    if isinstance(value, dict):
        items = (f"{json.dumps(key)}:{canonical_json_with(value[key])}" for key in sorted(value))
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_json_with, value)) + "]"
    return canonical_json(value)


def canonical_report_json(value: Any) -> str:
    """Return JSON with sorted keys, blanks after separators, and floats and characters unchanged.

    The digests in published step reports cover this form, so it cannot be replaced by `canonical_json`.

    >>> canonical_report_json({"b": 1.0, "a": "é"})
    '{"a": "é", "b": 1.0}'
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def canonical_document(value: Any, *, indent: int, ascii_only: bool) -> str:
    """Return the text of a JSON file for people to read: sorted keys, indented, with a newline at the end.

    Digests of whole files cover this form. The two arguments differ between files that are already published.
    """
    return json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=ascii_only, allow_nan=False) + "\n"


def content_digest(value: Any) -> str:
    """Return `sha256:` and the digest of a value's canonical JSON."""
    return text_digest(canonical_json(value))


def text_digest(text: str) -> str:
    """Return `sha256:` and the SHA-256 digest of a text in UTF-8, 64 hex digits."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _without_integral_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_integral_floats(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_integral_floats(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
