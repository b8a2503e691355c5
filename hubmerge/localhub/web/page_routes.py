"""Routes of pages for browsers, and the pages of refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from hubmerge.localhub.refusals import Moved, Refusal, RepositoryMissing
from hubmerge.localhub.registry import RESERVED
from hubmerge.localhub.repository import KINDS
from hubmerge.localhub.web.addresses import format_date, repo_address
from hubmerge.localhub.web.calls import Call, may_see, open_call
from hubmerge.localhub.web.markup import Html, html_page, link, table, tag
from hubmerge.localhub.web.unserved import PROGRAMS


class PageRoute(Route):
    """Route that matches requests of browsers only."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match addresses that are not for programs and do not begin with a name that no user can have."""
        first = scope["path"].split("/")[1]
        if first.startswith(".") or (first in RESERVED and not (first in KINDS and self.path.startswith(f"/{first}/"))):
            return Match.NONE, {}
        return super().matches(scope)


def list_repos(call: Call, owner: str | None = None) -> list[Html]:
    """List the repos that the caller may see, by kind; of all owners or of one."""
    parts = []
    for plural, kind in KINDS.items():
        rows = []
        for repository, settings in sorted(call.site.registry.all(kind), key=lambda found: found[1].id):
            if not may_see(call.user, settings) or owner not in (None, settings.namespace):
                continue
            with contextlib.suppress(Refusal, FileNotFoundError):  # deleted in the meantime
                date = repository.commit(repository.resolve("main")).date
                name = tag("td", link(repo_address(settings), settings.id))
                rows.append([name, tag("td", format_date(date), class_="number")])
        if rows:
            parts += [tag("h2", plural.capitalize()), table(rows, class_="list")]
    return parts


def not_found_page(message: str, existing: list[Html]) -> Response:
    """Return the page for a missing thing, with a list of existing ones."""
    return html_page("Not found", [tag("h1", "Not found"), tag("p", message), *existing], status=404)


def missing_repo_page(call: Call) -> Response:
    """Return the page for a repo that is missing or hidden, with a list of the others."""
    message = f"There is no {call.kind} {call.repo_id} on this Hub that you may see."
    existing = list_repos(call) or [tag("p", "There are no public repos yet.", class_="soft")]
    return not_found_page(message, [tag("p", "Repos on this Hub:"), *existing])


def refusal_page(refusal: Refusal) -> Response:
    """Return the page of a refusal; of a repo that has another name now, the way to it."""
    if isinstance(refusal, Moved):
        return RedirectResponse(refusal.headers["Location"], status_code=refusal.status)
    title = {404: "Not found", 501: "Not served"}.get(refusal.status, "Refused")
    existing = tag("p", "The repos of this Hub are listed on ", link("/", "its first page"), ".")
    return html_page(title, [tag("h1", title), tag("p", refusal.message), existing], status=refusal.status)


def wants_page(request: Request) -> bool:
    """Return True if the request comes from a browser and not from a program."""
    parts = request.scope["path"].strip("/").split("/")
    return (
        request.method in ("GET", "HEAD")
        and "text/html" in request.headers.get("accept", "")
        and parts[0] not in PROGRAMS
        and not {"resolve", "raw"} & {*parts}
    )


def page_route(path: str, handler: Callable[[Call], Response], plural: str = "models") -> Route:
    """Return a route that calls a function in a thread; refusals are pages too."""

    async def endpoint(request: Request) -> Response:
        try:
            call = open_call(request)
            call.params["plural"] = plural
            try:
                return await run_in_threadpool(handler, call)
            except RepositoryMissing:
                return await run_in_threadpool(missing_repo_page, call)
        except Refusal as refusal:
            return refusal_page(refusal)

    return PageRoute(path, endpoint, methods=["GET"])


def repo_page_routes(handler: Callable[[Call], Response], *rests: str) -> list[Route]:
    """Return the routes of a page of every kind of repo, for each address after the id of the repo."""
    return [
        page_route(prefix + "/{namespace}/{name}" + rest, handler, plural)
        for prefix, plural in (("/datasets", "datasets"), ("/spaces", "spaces"), ("", "models"))
        for rest in rests
    ]
