"""Access tokens out of whatever is told or written down."""

from __future__ import annotations

import os
import re

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9_]{6,}")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUBMERGE_WEBHOOK_SECRET")
_SHORTEST_SECRET = 6
HIDDEN = "hf_***"


def without_token(text: str) -> str:
    """Return `text` with everything that looks like an access token, and every secret of the environment, taken out."""
    for name in _SECRETS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)
