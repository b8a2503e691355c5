"""Removal of secrets, and of characters that control a terminal, from text that is shown or written."""

from __future__ import annotations

import os
import re
from typing import Any

from merge_recipes.secrets import SECRET

_TOKEN = re.compile(rf"\bhf_[A-Za-z0-9_]{{6,}}|{SECRET.pattern}")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUBMERGE_WEBHOOK_SECRET")
_SHORTEST_SECRET = 6
HIDDEN = "hf_***"

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, marks that change the direction of text, and halves of characters."""


def without_token(text: str) -> str:
    """Return `text` with all access tokens, and the values of secret environment variables, replaced by `hf_***`."""
    for name in _SECRETS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)


def for_terminal(text: str) -> str:
    r"""Return `text` with control characters written as escapes, so that no text from outside controls a terminal.

    >>> for_terminal("red \x1b[31m")
    'red \\x1b[31m'
    """
    return _CONTROL.sub(lambda found: _escaped(found[0]), text)


def shown(text: str) -> str:
    """Return `text` as it may be printed: without secrets and without control characters."""
    return for_terminal(without_token(text))


def for_json(text: str) -> str:
    """Return a JSON text with the control characters that JSON allows in strings written as JSON escapes."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_tokens(value: Any) -> Any:
    """Return a JSON value with `without_token` applied to all its texts."""
    if isinstance(value, str):
        return without_token(value)
    if isinstance(value, list):
        return [without_tokens(one) for one in value]
    return {key: without_tokens(one) for key, one in value.items()} if isinstance(value, dict) else value


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
