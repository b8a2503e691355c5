"""The client of the Hub and its access token."""

from __future__ import annotations

import functools

from huggingface_hub import HfApi, get_token

from hubmerge.support.version import VERSION


@functools.cache
def api() -> HfApi:
    """Return the client of the Hub that HF_ENDPOINT and HF_TOKEN name."""
    return HfApi(library_name="hubmerge", library_version=VERSION)


def endpoint() -> str:
    """Return the address of the Hub, without a slash at the end."""
    return str(api().endpoint)


def has_token() -> bool:
    """Return True if an access token is set, in HF_TOKEN or by `hf auth login`."""
    return get_token() is not None
