"""The client of the Hub and its access token."""

from __future__ import annotations

import functools
import os
import re

from huggingface_hub import HfApi, get_token

from hubmerge.errors import HubError
from hubmerge.support.endpoint import check_endpoint
from hubmerge.support.version import VERSION

_TOKEN = re.compile(r"[!-~]+")
"""Characters of an HTTP header that may form a token: ASCII without spaces."""


def api() -> HfApi:
    """Return the client of the Hub that HF_ENDPOINT and HF_TOKEN name.

    Raises:
        UsageError: HF_ENDPOINT contains a user name or a password.
        HubError: the access token contains characters that no token has.
    """
    check_endpoint()
    # A token of trusted publishing comes from an exchange that may fail, which the request then reports.
    token = None if os.environ.get("HF_OIDC_RESOURCE") else get_token()
    if token is not None and _TOKEN.fullmatch(token) is None:
        raise HubError(
            "the access token contains a character that no token has: expected letters, digits and '_'",
            hint="set HF_TOKEN to a token of the Hub, or run `hf auth login`",
        )
    return _client()


@functools.cache
def _client() -> HfApi:
    return HfApi(library_name="hubmerge", library_version=VERSION)


def endpoint() -> str:
    """Return the address of the Hub, without a slash at the end."""
    return str(api().endpoint)


def has_token() -> bool:
    """Return True if an access token is set, in HF_TOKEN or by `hf auth login`."""
    return get_token() is not None
