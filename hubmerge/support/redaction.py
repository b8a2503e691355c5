"""Removal of access tokens from text that is shown or written."""

from __future__ import annotations

import os
import re

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUBMERGE_WEBHOOK_SECRET")
_SHORTEST_SECRET = 6
HIDDEN = "hf_***"


def without_token(text: str) -> str:
    """Return `text` with all access tokens, and the values of secret environment variables, replaced by `hf_***`."""
    for name in _SECRETS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)
