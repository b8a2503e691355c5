"""The lists of models, datasets and spaces."""

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
"""Left out of a list unless `full` or `expand` asks for them."""


def wanted_fields(call: Call) -> set[str]:
    """Return the expensive fields that the caller asks for."""
    query = call.request.query_params
    fields = set(query.getlist("expand"))
    if call.flag("full"):
        fields |= COSTLY_FIELDS
    if call.flag("cardData"):
        fields.add("cardData")
    return fields


def fits(call: Call, described: dict[str, Any]) -> bool:
    """Return True if a repo passes the filters of the query; several of a kind must all fit."""
    query = call.request.query_params
    if query.get("author") not in (None, described["author"]):
        return False
    if any(word.lower() not in described["id"].lower() for word in query.getlist("search")):
        return False
    if not set(query.getlist("filter")) <= set(described["tags"]):
        return False
    if query.get("pipeline_tag") not in (None, described.get("pipeline_tag")):
        return False
    return "gated" not in query or call.flag("gated") == bool(described["gated"])


def list_repos(call: Call, kind: str) -> Any:
    """List the repos the caller may know of."""
    found = []
    for repository, settings in call.site.registry.all(kind):
        if not may_see(call.user, settings):
            continue
        with contextlib.suppress(Refusal, FileNotFoundError):  # deleted while we look
            described = describe_repo(
                call.site.store, repository, settings, repository.resolve("main"), whole=call.flag("config")
            )
            if fits(call, described):
                found.append(described)
    sort = call.request.query_params.get("sort", "createdAt")
    key = sort if sort in ("createdAt", "lastModified", "id") else "createdAt"
    found.sort(key=lambda described: (described[key], described["id"]), reverse=key != "id")
    left_out = COSTLY_FIELDS - wanted_fields(call)
    listed = [{name: value for name, value in item.items() if name not in left_out} for item in found]
    return page(call, listed, REPOS_PAGE)


def listing_of(kind: str) -> Any:
    """Make the handler that lists the repos of a kind."""
    return lambda call: list_repos(call, kind)


ROUTES = [route("GET", f"/api/{plural}", listing_of(kind)) for plural, kind in KINDS.items()]
