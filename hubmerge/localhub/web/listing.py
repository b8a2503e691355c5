"""Lists of models, datasets and spaces."""

from __future__ import annotations

import contextlib
from typing import Any

from hubmerge.localhub.refusals import Refusal
from hubmerge.localhub.repository import KINDS
from hubmerge.localhub.web.calls import Call, may_see, route
from hubmerge.localhub.web.describe import describe_repo
from hubmerge.localhub.web.paging import page

REPOS_PAGE = 100
COSTLY_FIELDS = {"siblings", "cardData"}
"""Fields that a list has only with `full` or `expand`."""


FIELDS_OF_FILES = {"safetensors", "config", "usedStorage"}
"""Fields that are read from the files of a repo."""


def requested_fields(call: Call) -> set[str]:
    """Return the optional fields that the query asks for."""
    query = call.request.query_params
    fields = set(query.getlist("expand"))
    if call.flag("full"):
        fields |= COSTLY_FIELDS
    if call.flag("cardData"):
        fields.add("cardData")
    return fields


def matches_filters(call: Call, described: dict[str, Any]) -> bool:
    """Return True if a repo matches all filters of the query."""
    query = call.request.query_params
    if query.get("author") not in (None, described["author"]):
        return False
    words = [word for text in query.getlist("search") for word in text.lower().split()]
    if any(word not in described["id"].lower() for word in words):
        return False
    if not set(query.getlist("filter")) <= set(described["tags"]):
        return False
    if query.get("pipeline_tag") not in (None, described.get("pipeline_tag")):
        return False
    return "gated" not in query or call.flag("gated") == bool(described["gated"])


def list_repos(call: Call, kind: str) -> Any:
    """List the repos that the caller may see."""
    found = []
    whole = call.flag("config") or bool(FIELDS_OF_FILES & requested_fields(call))
    for repository, settings in call.site.registry.all(kind):
        if not may_see(call.user, settings):
            continue
        with contextlib.suppress(Refusal, FileNotFoundError):  # deleted in the meantime
            described = describe_repo(call.site.store, repository, settings, repository.resolve("main"), whole=whole)
            if matches_filters(call, described):
                found.append(described)
    sort = call.request.query_params.get("sort", "createdAt")
    key = sort if sort in ("createdAt", "lastModified", "id") else "createdAt"
    found.sort(key=lambda described: (described[key], described["id"]), reverse=key != "id")
    omitted = COSTLY_FIELDS - requested_fields(call)
    listed = [{name: value for name, value in item.items() if name not in omitted} for item in found]
    return page(call, listed, REPOS_PAGE)


def listing_of(kind: str) -> Any:
    """Return the handler that lists the repos of a kind."""
    return lambda call: list_repos(call, kind)


ROUTES = [route("GET", f"/api/{plural}", listing_of(kind)) for plural, kind in KINDS.items()]
