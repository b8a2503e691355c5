"""Pages of the history of a repo: the commits of a revision, one commit, and one file."""

from __future__ import annotations

import itertools
from urllib.parse import quote

from starlette.responses import Response

from hubmerge.localhub.records import FileEntry, Tree
from hubmerge.localhub.refusals import RevisionMissing
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.web.addresses import (
    file_pages_address,
    files_address,
    format_date,
    format_size,
    repo_address,
    revision_address,
    tree_address,
)
from hubmerge.localhub.web.calls import Call
from hubmerge.localhub.web.cards import render_markdown
from hubmerge.localhub.web.describe import card_text
from hubmerge.localhub.web.download import content_type
from hubmerge.localhub.web.markup import PAGE_HEADERS, SANDBOXED, Html, html_page, link, table, tag
from hubmerge.localhub.web.page_routes import not_found_page, repo_page_routes
from hubmerge.localhub.web.pages import ROWS_LIMIT, list_refs, render_card, render_heading, split_revision
from hubmerge.localhub.web.parsing import parse_number
from hubmerge.support.names import CARD_FILE

COMMITS_ON_PAGE = 50
TEXT_LIMIT_BYTES = 200_000


def no_revision_page(repository: Repository, settings: Settings, address: str) -> Response:
    """Return the page for a revision that a repo does not have."""
    return not_found_page(
        f"{settings.id} has no branch, tag or commit {address}.", list_refs(repository, settings, None)
    )


def show_commits(call: Call) -> Response:
    """Show the commits of a revision, newest first."""
    repository, settings = call.readable()
    revision = call.params["revision"].strip("/") or "main"
    try:
        history = repository.history(repository.resolve(revision))
    except RevisionMissing:
        return no_revision_page(repository, settings, revision)
    page = parse_number(call.request.query_params.get("p")) or 0
    listed = list(itertools.islice(history, page * COMMITS_ON_PAGE, (page + 1) * COMMITS_ON_PAGE + 1))
    rows = [
        [
            tag("td", link(revision_address(settings, "commit", found), commit.title)),
            tag("td", commit.author),
            tag("td", format_date(commit.date), class_="number"),
            tag("td", link(tree_address(settings, found), found[:7]), class_="commit"),
        ]
        for found, commit in listed[:COMMITS_ON_PAGE]
    ]
    here = revision_address(settings, "commits", revision)
    steps = [link(f"{here}?p={page - 1}", "newer commits")] if page else []
    steps += [link(f"{here}?p={page + 1}", "older commits")] if len(listed) > COMMITS_ON_PAGE else []
    content = [
        *render_heading(settings),
        tag("h2", "Commits of ", link(tree_address(settings, revision), revision)),
        table(rows, class_="list"),
        *(tag("p", step) for step in steps),
        *list_refs(repository, settings, None),
    ]
    return html_page(f"Commits of {settings.id} at {revision}", content)


def list_changes(settings: Settings, before: Tree, after: Tree, found: str, parent: str | None) -> list[Html]:
    """Return the files that a commit adds, changes or removes, with links to both states."""
    rows = []
    paths = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    for path in paths[:ROWS_LIMIT]:
        old, new = before.get(path), after.get(path)
        word = "added" if old is None else "removed" if new is None else "changed"
        at = parent if new is None and parent is not None else found
        sizes = " → ".join(format_size(entry.size) for entry in (old, new) if entry is not None)
        rows.append(
            [
                tag("td", link(revision_address(settings, "blob", at, path), path)),
                tag("td", word),
                tag("td", sizes, class_="number"),
            ]
        )
    parts = [tag("h2", "1 file" if len(paths) == 1 else f"{len(paths):,} files"), table(rows, class_="list")]
    if len(paths) > ROWS_LIMIT:
        parts.append(tag("p", f"{len(paths) - ROWS_LIMIT:,} more are not listed here.", class_="soft"))
    return parts


def show_commit(call: Call) -> Response:
    """Show what a commit changes."""
    repository, settings = call.readable()
    revision = call.params["revision"].strip("/")
    try:
        found = repository.resolve(revision)
    except RevisionMissing:
        return no_revision_page(repository, settings, revision)
    commit = repository.commit(found)
    parent = commit.parents[0] if commit.parents else None
    before = repository.tree(parent) if parent is not None else {}
    facts = [[tag("th", "commit", scope="row"), tag("td", link(tree_address(settings, found), found), class_="commit")]]
    for above in commit.parents:
        target = link(revision_address(settings, "commit", above), above)
        facts.append([tag("th", "parent", scope="row"), tag("td", target, class_="commit")])
    content = [
        *render_heading(settings),
        tag("h2", commit.title),
        *([tag("pre", commit.message, tabindex="0")] if commit.message.strip() else []),
        tag("p", f"{commit.author} · {format_date(commit.date)}", class_="soft"),
        table(facts),
        tag("p", link(revision_address(settings, "commits", found), "history")),
        *list_changes(settings, before, repository.tree(found), found, parent),
    ]
    return html_page(f"{commit.title} · {settings.id}", content)


def show_file(call: Call) -> Response:
    """Show a file at a revision: cards rendered, other text and pictures themselves, of others size and hash."""
    repository, settings = call.readable_files()
    address = call.params["address"]
    try:
        revision, commit_id, path = split_revision(repository, address)
    except RevisionMissing:
        return no_revision_page(repository, settings, address)
    tree = repository.tree(commit_id)
    entry = tree.get(path)
    if entry is None:
        target = tree_address(settings, revision, path if any(name.startswith(f"{path}/") for name in tree) else "")
        return not_found_page(f"{settings.id} has no file {path} at {revision}.", [tag("p", link(target, "files"))])
    if is_page(path, entry) and "page" in call.request.query_params:
        return sandboxed_page(call, entry)
    folder = path.rpartition("/")[0]
    facts = [("size", f"{entry.size:,} bytes"), ("git blob", entry.oid)]
    facts += [("sha256", entry.sha256)] if entry.sha256 else []
    raw = f"{repo_address(settings)}/raw/{quote(revision, safe='')}/{quote(path)}"
    download = files_address(settings, revision) + quote(path)
    card = render_card(call, settings, tree, revision) if path == CARD_FILE else []
    content = [
        *render_heading(settings),
        tag("h2", path),
        tag(
            "p",
            link(tree_address(settings, revision, folder), f"files at {revision}"),
            " · ",
            link(revision_address(settings, "commits", revision), "history"),
            " · ",
            link(f"{download}?download=true", "download"),
            " · ",
            link(raw, "raw"),
            *([" · ", link("?page", "open as a page")] if is_page(path, entry) else []),
        ),
        table([[tag("th", name, scope="row"), tag("td", value, class_="commit")] for name, value in facts]),
        *(card or [show_content(call, settings, revision, path, entry)]),
    ]
    return html_page(f"{path} · {settings.id}", content)


def is_page(path: str, entry: FileEntry) -> bool:
    """Return True for an HTML file that a browser can open, such as a report."""
    return path.endswith(".html") and not entry.sha256


def sandboxed_page(call: Call, entry: FileEntry) -> Response:
    """Return an HTML file as a page without access to this Hub, to the network or to what the browser stores."""
    content = call.site.store.blob_path(entry.oid).read_bytes()
    headers = {**PAGE_HEADERS, "Content-Security-Policy": SANDBOXED}
    return Response(content, media_type="text/html; charset=utf-8", headers=headers)


def show_content(call: Call, settings: Settings, revision: str, path: str, entry: FileEntry) -> Html:
    """Return the content of a file as a picture, rendered Markdown or text, or a line that says why it is not shown."""
    files = files_address(settings, revision)
    if content_type(path, entry).startswith("image/"):
        return tag("p", tag("img", src=files + quote(path), alt=path))
    if entry.sha256 or entry.size > TEXT_LIMIT_BYTES:
        return tag("p", "Large and binary files are not shown here.", class_="soft")
    text = call.site.store.blob_path(entry.oid).read_text(encoding="utf-8", errors="replace")
    if not path.endswith(".md"):
        return tag("pre", text, tabindex="0")
    folder = quote(path[: path.rfind("/") + 1])
    pages = file_pages_address(settings, revision)
    return tag("article", render_markdown(card_text(text), files + folder, pages + folder))


ROUTES = [
    *repo_page_routes(show_commits, "/commits/{revision:path}"),
    *repo_page_routes(show_commit, "/commit/{revision:path}"),
    *repo_page_routes(show_file, "/blob/{address:path}"),
]
