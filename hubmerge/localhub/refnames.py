"""Names of branches, tags and pull requests."""

from __future__ import annotations

from urllib.parse import quote

from hubmerge.localhub.refusals import BadRequest
from hubmerge.support.names import is_commit

HEADS, TAGS, PULLS, CONVERTS = "heads", "tags", "pr", "convert"
DEFAULT_BRANCH = "main"


def check_ref_name(name: str) -> str:
    """Return `name` if it is a valid branch or tag.

    Raises:
        BadRequest: git refuses the name, or it looks like a commit.
    """
    forbidden = set(" ~^:?*[\\\x7f") | {chr(code) for code in range(32)}
    if (
        not name
        or len(quote(name, safe="")) > 200
        or forbidden & set(name)
        or ".." in name
        or "@{" in name
        or any(part.startswith(".") or part.endswith(".lock") or not part for part in name.split("/"))
        or name.endswith(".")
        or name == "HEAD"
        or is_commit(name)
    ):
        raise BadRequest(f"Invalid ref name: {name!r}.")
    return name
