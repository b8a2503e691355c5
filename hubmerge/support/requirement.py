"""Origin of the installed hubmerge, as a requirement that pip can install elsewhere."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from hubmerge.errors import UsageError
from hubmerge.support.version import VERSION


def requirement(given: str | None = None) -> str:
    """Return what another machine has to install to get this hubmerge.

    Args:
        given: the requirement that the user named; it is returned as it is.

    Returns:
        `hubmerge @ git+URL@COMMIT` or `hubmerge @ URL#HASH` if pip recorded where it installed hubmerge from (PEP 610),
        `hubmerge==VERSION` if it came from a package index.

    Raises:
        UsageError: hubmerge was installed from a folder of this machine, or is not installed.
    """
    if given is not None:
        return given
    found = installed_requirement()
    if found is None:
        raise UsageError(
            "hubmerge was installed from a folder of this machine, which another machine cannot install",
            hint="name where it can be installed from: --requirement 'hubmerge @ git+https://HOST/OWNER/REPO@COMMIT'",
        )
    return found


def installed_requirement() -> str | None:
    """Return the requirement that pip recorded for the installed hubmerge, None for a folder of this machine."""
    try:
        recorded = distribution("hubmerge").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    return f"hubmerge=={VERSION}" if recorded is None else direct_requirement(json.loads(recorded))


def with_extra(text: str, extra: str) -> str:
    """Return a requirement of hubmerge with an extra.

    >>> with_extra("hubmerge @ git+https://a.b/c@12ab", "sign"), with_extra("hubmerge[demo]==1.0", "sign")
    ('hubmerge[sign] @ git+https://a.b/c@12ab', 'hubmerge[demo,sign]==1.0')

    Raises:
        UsageError: the requirement does not begin with the name, so that no extra can be added to it.
    """
    named = re.fullmatch(r"hubmerge(?:\s*\[([^\]]*)\])?(\s*[@=<>!~;].*|)", text)
    if named is None:
        raise UsageError(
            f"{text!r} does not name hubmerge, and the recipe needs its extra `{extra}`",
            hint=f"--requirement 'hubmerge[{extra}] @ git+https://HOST/OWNER/REPO@COMMIT'",
        )
    extras = dict.fromkeys([*filter(None, re.split(r"[,\s]+", named[1] or "")), extra])
    return f"hubmerge[{','.join(extras)}]{named[2]}"


def direct_requirement(origin: dict[str, Any]) -> str | None:
    """Return the requirement for the content of a `direct_url.json` (PEP 610), None for a local folder or file.

    >>> direct_requirement({"url": "https://a.b/c", "vcs_info": {"vcs": "git", "commit_id": "12ab"}})
    'hubmerge @ git+https://a.b/c@12ab'
    """
    url = str(origin["url"])
    if not url.startswith(("https://", "ssh://", "http://")):
        return None
    if "vcs_info" in origin:
        version_control = origin["vcs_info"]
        return f"hubmerge @ {version_control['vcs']}+{url}@{version_control['commit_id']}"
    if "archive_info" not in origin:
        return None
    hashes = origin["archive_info"].get("hashes") or {}
    fragment = f"#sha256={hashes['sha256']}" if "sha256" in hashes else ""
    return f"hubmerge @ {url}{fragment}"
