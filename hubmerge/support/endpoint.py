"""Check of the environment variable that names the Hub."""

from __future__ import annotations

import os
import re

from hubmerge.errors import UsageError

_ACCOUNT = re.compile(r"//[^/]*@")


def check_endpoint() -> None:
    """Check that HF_ENDPOINT contains no password: libraries write the address into messages, caches and files.

    Raises:
        UsageError: it contains a user name or a password.
    """
    if _ACCOUNT.search(os.environ.get("HF_ENDPOINT", "")):
        raise UsageError(
            "HF_ENDPOINT contains a user name or a password, which would appear in messages and files",
            hint="write the address alone, such as https://HOST, and set HF_TOKEN",
        )
