"""Proxy that the environment names for the Hub."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import proxy_bypass


def proxy_variable(address: str) -> str | None:
    """Return the environment variable that names a proxy for this address, or None if there is none.

    Args:
        address: the address of a Hub.
    """
    parts = urlsplit(address)
    if parts.hostname is None or proxy_bypass(parts.hostname):
        return None
    names = [f"{scheme}_proxy" for scheme in (parts.scheme, "all")]
    return next((one for name in names for one in (name.upper(), name) if os.environ.get(one)), None)
