"""Access requests for gated repos."""

from __future__ import annotations

from typing import Any

from hubmerge.localhub.refusals import BadRequest, Conflict, NotFound
from hubmerge.localhub.web.calls import REPO, Call, route
from hubmerge.localhub.web.paging import page

STATES = ("pending", "accepted", "rejected")
REQUESTS_PAGE = 100


def list_requests(call: Call) -> Any:
    """List the access requests in a state, for callers who may write to the repo."""
    _, settings, _ = call.writable()
    if call.params["state"] not in STATES:
        raise BadRequest(f"The state of a request is one of {', '.join(STATES)}.")
    requests = [
        {
            "requestId": name,
            "user": {"user": name, "fullname": name},
            "status": request["status"],
            "timestamp": request["timestamp"],
        }
        for name, request in sorted(settings.access.items())
        if request["status"] == call.params["state"]
    ]
    return page(call, requests, REQUESTS_PAGE)


def request_access(call: Call) -> Any:
    """Request access; a repo with `gated: auto` accepts at once."""
    repository, settings = call.readable()
    user = call.login()
    if not settings.gated:
        raise BadRequest("This repo is not gated.")
    if user.name in settings.access:
        raise Conflict("You already asked for access.")
    state = "accepted" if settings.gated == "auto" else "pending"
    repository.change_access(user.name, state)
    return {"status": state}


def check_request(call: Call) -> None:
    """Raise the refusal of a caller who may not see the repo, or who is anonymous."""
    call.readable()
    call.login()


def grant(call: Call) -> Any:
    """Give a user access, with or without a request."""
    repository, settings, _ = call.writable()
    name = str(call.json().get("user"))
    if not settings.gated:
        raise BadRequest("This repo is not gated.")
    if call.site.users.find(name) is None:
        raise NotFound(f"There is no user {name!r}.")
    if settings.access.get(name, {}).get("status") == "accepted":
        raise BadRequest(f"{name} already has access.")
    repository.change_access(name, "accepted")
    return {}


def answer_request(call: Call) -> Any:
    """Accept or reject an access request."""
    repository, settings, _ = call.writable()
    data = call.json()
    name, state = str(data.get("user") or data.get("requestId")), data.get("status")
    if not settings.gated or state not in STATES:
        raise BadRequest(f"Expected a gated repo and a status of {', '.join(STATES)}.")
    request = settings.access.get(name)
    if request is None:
        raise NotFound(f"{name!r} did not ask for access.")
    if request["status"] == state:
        raise NotFound(f"The request of {name} is already {state}.")
    repository.change_access(name, str(state))
    return {}


def may_read(call: Call) -> Any:
    """Return an empty answer if the caller may read the files."""
    call.readable_files()
    return {}


def may_write(call: Call) -> Any:
    """Return an empty answer if the caller may change the files."""
    call.readable_files()
    call.writable()
    return {}


ROUTES = [
    route("GET", REPO + "/auth-check", may_read),
    route("GET", REPO + "/auth-check/write", may_write),
    route("GET", REPO + "/user-access-request/{state}", list_requests),
    route("POST", REPO + "/user-access-request/grant", grant, Call.writable),
    route("POST", REPO + "/user-access-request/handle", answer_request, Call.writable),
    route("POST", "/{namespace}/{name}/ask-access", request_access, check_request),
    route("POST", "/{plural:kind}/{namespace}/{name}/ask-access", request_access, check_request),
]
