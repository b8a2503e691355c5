"""Pages for browsers: the list of repos, and each repo at a revision. They are read-only and have no scripts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from hubmerge.localhub.records import Tree
from hubmerge.localhub.refnames import CONVERTS, HEADS, PULLS, TAGS
from hubmerge.localhub.refusals import Moved, Refusal, RepositoryMissing, RevisionMissing
from hubmerge.localhub.registry import RESERVED
from hubmerge.localhub.repository import KINDS, Repository, Settings
from hubmerge.localhub.web.calls import PREFIXES, Call, may_read_gated, may_see, open_call
from hubmerge.localhub.web.cards import metadata_table, render_markdown
from hubmerge.localhub.web.describe import CARD_LIMIT_BYTES, card_of, card_text, describe_tree
from hubmerge.localhub.web.markup import Html, html_page, link, table, tag
from hubmerge.localhub.web.unserved import PROGRAMS
from hubmerge.support.names import CARD_FILE

ROWS_LIMIT = 1000
REFS = {HEADS: "Branches", TAGS: "Tags", PULLS: "Pull requests", CONVERTS: "Conversions"}


class PageRoute(Route):
    """Route that matches requests of browsers only."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match addresses that are not for programs and do not begin with a name that no user can have."""
        first = scope["path"].split("/")[1]
        if first.startswith(".") or (first in RESERVED and not (first in KINDS and self.path.startswith(f"/{first}/"))):
            return Match.NONE, {}
        return super().matches(scope)


def repo_address(settings: Settings) -> str:
    """Return the path of a repo's page."""
    return f"/{PREFIXES[settings.kind]}{settings.id}"


def tree_address(settings: Settings, revision: str, folder: str = "") -> str:
    """Return the path of the page of a revision, or of a folder at it."""
    return f"{repo_address(settings)}/tree/{quote(revision, safe='')}" + (f"/{quote(folder)}" if folder else "")


def files_address(settings: Settings, revision: str) -> str:
    """Return the path below which the files of a revision are served, with a slash at its end."""
    return f"{repo_address(settings)}/resolve/{quote(revision, safe='')}/"


def format_size(size: int) -> str:
    """Return a size with a unit."""
    if size < 1000:
        return f"{size} B"
    number = float(size)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5:
            return f"{number:.3g} {unit}"
    return f"{number / 1000:,.3g} TB"


def format_date(date: str) -> str:
    """Return the time of a record in a readable form."""
    return f"{date[:10]} {date[11:16]} UTC"


def list_repos(call: Call) -> list[Html]:
    """List the repos that the caller may see, by kind."""
    parts = []
    for plural, kind in KINDS.items():
        rows = []
        for repository, settings in sorted(call.site.registry.all(kind), key=lambda found: found[1].id):
            if not may_see(call.user, settings):
                continue
            with contextlib.suppress(Refusal, FileNotFoundError):  # deleted in the meantime
                date = repository.commit(repository.resolve("main")).date
                name = tag("td", link(repo_address(settings), settings.id))
                rows.append([name, tag("td", format_date(date), class_="number")])
        if rows:
            parts += [tag("h2", plural.capitalize()), table(rows, class_="list")]
    return parts or [tag("p", "There are no public repos yet.", class_="soft")]


def show_index(call: Call) -> Response:
    """Show the list of repos."""
    return html_page("hubmerge hub", [tag("h1", "Repos on this Hub"), *list_repos(call)])


def list_refs(repository: Repository, settings: Settings, revision: str | None) -> list[Html]:
    """Return links to all branches and tags of a repo, with the shown one marked."""
    parts = []
    for kind, title in REFS.items():
        items = []
        for name in repository.refs(kind):
            target = name if kind in (HEADS, TAGS) else f"refs/{kind}/{name}"
            shown = {"aria_current": "page"} if revision in (target, f"refs/{kind}/{name}") else {}
            items.append(tag("li", link(tree_address(settings, target), name, **shown)))
        if items:
            parts += [tag("h2", title), tag("ul", *items, class_="refs")]
    return parts


def split_revision(repository: Repository, address: str) -> tuple[str, str, str]:
    """Split an address after `tree/` into revision, its commit, and folder; a revision may contain slashes.

    Raises:
        RevisionMissing: the address does not start with a revision.
    """
    parts = address.strip("/").split("/")
    for count in range(len(parts), 0, -1):
        revision = "/".join(parts[:count])
        with contextlib.suppress(RevisionMissing):
            return revision, repository.resolve(revision), "/".join(parts[count:])
    raise RevisionMissing(f"Invalid rev id: {address}")


def list_files(settings: Settings, tree: Tree, revision: str, folder: str) -> list[Html]:
    """Return the listing of a folder, folders first."""
    listing = describe_tree(tree, folder, recursive=False)
    rows = []
    if folder:
        rows.append([tag("td", link(tree_address(settings, revision, folder.rpartition("/")[0]), "..")), tag("td")])
    for item in sorted(listing, key=lambda item: (item["type"] == "file", item["path"]))[:ROWS_LIMIT]:
        path, name = item["path"], item["path"].rpartition("/")[2]
        if item["type"] == "file":
            target, size = files_address(settings, revision) + quote(path), format_size(item["size"])
        else:
            target, name, size = tree_address(settings, revision, path), f"{name}/", ""
        rows.append([tag("td", link(target, name)), tag("td", size, class_="number")])
    parts = [tag("h2", f"Files in {folder}" if folder else "Files"), table(rows, class_="list")]
    if len(listing) > ROWS_LIMIT:
        parts.append(tag("p", f"{len(listing) - ROWS_LIMIT:,} more are not listed here.", class_="soft"))
    return parts


def render_card(call: Call, settings: Settings, tree: Tree, revision: str) -> list[Html]:
    """Render the README.md of a commit; empty if it is missing, too large or a large file."""
    entry = tree.get(CARD_FILE)
    if entry is None or entry.sha256 or entry.size > CARD_LIMIT_BYTES:
        return []
    if settings.gated and not may_read_gated(call.user, settings):
        return [tag("p", "Access to the files of this repo is restricted.", class_="soft")]
    text = card_text(call.site.store.blob_path(entry.oid).read_text(encoding="utf-8", errors="replace"))
    metadata = metadata_table(card_of(call.site.store, tree))
    return [tag("article", metadata, render_markdown(text, files_address(settings, revision)))]


def render_heading(settings: Settings) -> list[Html]:
    """Return the title of a repo's page."""
    kinds = [settings.kind, *(["gated"] if settings.gated else []), *(["private"] if settings.private else [])]
    labels: list[str] = []
    for kind in kinds:
        labels += [" ", tag("span", kind, class_="kind")]
    return [tag("h1", link(repo_address(settings), settings.id)), tag("p", *labels)]


def show_repo(call: Call) -> Response:
    """Show a repo at a revision (default: main), or a folder of it."""
    try:
        repository, settings = call.readable()
    except RepositoryMissing:
        message = f"There is no {call.kind} {call.repo_id} on this Hub that you may see."
        return not_found_page(message, [tag("p", "Repos on this Hub:"), *list_repos(call)])
    address = call.params.get("address") or "main"
    try:
        revision, commit_id, folder = split_revision(repository, address)
    except RevisionMissing:
        message = f"{settings.id} has no branch, tag or commit {address}."
        return not_found_page(message, list_refs(repository, settings, None))
    tree = repository.tree(commit_id)
    if folder and not any(path.startswith(f"{folder}/") for path in tree):
        message = f"{settings.id} has no folder {folder} at {revision}."
        if folder in tree:
            target = files_address(settings, revision) + quote(folder)
            return not_found_page(message, [tag("p", "There is a file with this name: ", link(target, folder))])
        return not_found_page(message, list_files(settings, tree, revision, ""))
    commit = repository.commit(commit_id)
    about = [
        tag("strong", revision),
        " is commit ",
        link(tree_address(settings, commit_id), commit_id, class_="commit"),
        Html("<br>"),
        commit.title,
        tag("span", f" · {commit.author} · {format_date(commit.date)}", class_="soft"),
    ]
    content = [
        *render_heading(settings),
        tag("p", *about),
        *list_refs(repository, settings, revision),
        *list_files(settings, tree, revision, folder),
        *([] if folder else render_card(call, settings, tree, revision)),
    ]
    return html_page(settings.id if revision == "main" else f"{settings.id} at {revision}", content)


def not_found_page(message: str, existing: list[Html]) -> Response:
    """Return the page for a missing thing, with a list of existing ones."""
    return html_page("Not found", [tag("h1", "Not found"), tag("p", message), *existing], status=404)


def wants_page(request: Request) -> bool:
    """Return True if the request comes from a browser and not from a program."""
    parts = request.scope["path"].strip("/").split("/")
    return (
        request.method in ("GET", "HEAD")
        and "text/html" in request.headers.get("accept", "")
        and parts[0] not in PROGRAMS
        and "resolve" not in parts
    )


def refusal_page(refusal: Refusal) -> Response:
    """Return the page of a refusal; of a repo that has another name now, the way to it."""
    if isinstance(refusal, Moved):
        return RedirectResponse(refusal.headers["Location"], status_code=refusal.status)
    title = {404: "Not found", 501: "Not served"}.get(refusal.status, "Refused")
    existing = tag("p", "The repos of this Hub are listed on ", link("/", "its first page"), ".")
    return html_page(title, [tag("h1", title), tag("p", refusal.message), existing], status=refusal.status)


def page_route(path: str, handler: Callable[[Call], Response], plural: str = "models") -> Route:
    """Return a route that calls a function in a thread; refusals are pages too."""

    async def endpoint(request: Request) -> Response:
        try:
            call = open_call(request)
            call.params["plural"] = plural
            return await run_in_threadpool(handler, call)
        except Refusal as refusal:
            return refusal_page(refusal)

    return PageRoute(path, endpoint, methods=["GET"])


ROUTES = [
    page_route("/", show_index),
    *(
        page_route(prefix + "/{namespace}/{name}" + rest, show_repo, plural)
        for prefix, plural in (("/datasets", "datasets"), ("/spaces", "spaces"), ("", "models"))
        for rest in ("", "/", "/tree/{address:path}")
    ),
]
