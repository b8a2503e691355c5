"""Pages for browsers: the list of repos, and each repo at a revision. They are read-only and have no scripts."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

from starlette.responses import Response

from hubmerge.localhub.records import Tree
from hubmerge.localhub.refnames import CONVERTS, HEADS, PULLS, TAGS
from hubmerge.localhub.refusals import RevisionMissing
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.web.addresses import (
    discussion_address,
    file_pages_address,
    files_address,
    format_date,
    format_size,
    repo_address,
    revision_address,
    tree_address,
)
from hubmerge.localhub.web.calls import Call, may_read_gated
from hubmerge.localhub.web.card_metadata import metadata_table, score_table
from hubmerge.localhub.web.cards import render_markdown
from hubmerge.localhub.web.describe import CARD_LIMIT_BYTES, card_of, card_text, describe_tree
from hubmerge.localhub.web.markup import Html, html_page, link, table, tag
from hubmerge.localhub.web.page_routes import list_repos, not_found_page, page_route, repo_page_routes
from hubmerge.support.names import CARD_FILE

ROWS_LIMIT = 1000
REFS = {HEADS: "Branches", TAGS: "Tags", PULLS: "Pull requests", CONVERTS: "Conversions"}


def show_index(call: Call) -> Response:
    """Show the list of repos."""
    listed = list_repos(call) or [tag("p", "There are no public repos yet.", class_="soft")]
    return html_page("hubmerge hub", [tag("h1", "Repos on this Hub"), *listed])


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
            shown = link(revision_address(settings, "blob", revision, path), name)
            size = link(files_address(settings, revision) + quote(path), format_size(item["size"]))
        else:
            shown, size = link(tree_address(settings, revision, path), f"{name}/"), Html()
        rows.append([tag("td", shown), tag("td", size, class_="number")])
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
    card = card_of(call.site.store, tree)
    rendered = render_markdown(text, files_address(settings, revision), file_pages_address(settings, revision))
    return [tag("article", metadata_table(card), rendered, score_table(card))]


def render_heading(settings: Settings) -> list[Html]:
    """Return the title of a repo's page."""
    kinds = [settings.kind, *(["gated"] if settings.gated else []), *(["private"] if settings.private else [])]
    labels: list[str] = []
    for kind in kinds:
        labels += [" ", tag("span", kind, class_="kind")]
    owner, _, name = settings.id.partition("/")
    title = tag("h1", link(f"/{owner}", owner), " / ", link(repo_address(settings), name))
    return [title, tag("p", *labels, " ", link(discussion_address(settings), "discussions"))]


def show_repo(call: Call) -> Response:
    """Show a repo at a revision (default: main), or a folder of it."""
    repository, settings = call.readable()
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
            shown = link(revision_address(settings, "blob", revision, folder), folder)
            stored = link(files_address(settings, revision) + quote(folder), "download")
            return not_found_page(message, [tag("p", "There is a file with this name: ", shown, " · ", stored)])
        return not_found_page(message, list_files(settings, tree, revision, ""))
    commit = repository.commit(commit_id)
    about = [
        tag("strong", revision),
        " is commit ",
        link(revision_address(settings, "commit", commit_id), commit_id, class_="commit"),
        " · ",
        link(revision_address(settings, "commits", revision), "history"),
        Html("<br>"),
        commit.title,
        tag("span", f" · {commit.author} · {format_date(commit.date)}", class_="soft"),
    ]
    content = [
        *render_heading(settings),
        tag("p", *about),
        *list_refs(repository, settings, revision),
        *([] if folder else render_card(call, settings, tree, revision)),
        *list_files(settings, tree, revision, folder),
    ]
    return html_page(settings.id if revision == "main" else f"{settings.id} at {revision}", content)


def show_no_icon(_call: Call) -> Response:
    """Answer the browser's own request for an icon."""
    return Response(status_code=204)


ROUTES = [
    page_route("/", show_index),
    page_route("/favicon.ico", show_no_icon),
    *repo_page_routes(show_repo, "", "/", "/tree/{address:path}"),
]
