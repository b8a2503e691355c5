"""Pages of what people do: the repos of an owner, and the discussions and pull requests of a repo."""

from __future__ import annotations

from starlette.responses import Response

from hubmerge.localhub import pulls
from hubmerge.localhub.discussions import Discussion
from hubmerge.localhub.refusals import NotFound
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.web.addresses import discussion_address, format_date, revision_address, tree_address
from hubmerge.localhub.web.calls import Call
from hubmerge.localhub.web.discussions import find_readable
from hubmerge.localhub.web.markup import Html, html_page, link, table, tag
from hubmerge.localhub.web.page_routes import list_repos, not_found_page, page_route, repo_page_routes
from hubmerge.localhub.web.pages import ROWS_LIMIT, render_heading


def show_owner(call: Call) -> Response:
    """Show the repos of a user or an organization that the caller may see."""
    owner = call.params["namespace"]
    listed = list_repos(call, owner)
    names = {name for user in call.site.users.users for name in (user.name, *user.orgs)}
    if not listed and owner not in names:
        existing = tag("p", "The repos of this Hub are listed on ", link("/", "its first page"), ".")
        return not_found_page(f"There is no user or organization {owner} with repos that you may see.", [existing])
    return html_page(owner, [tag("h1", owner), *(listed or [tag("p", "No public repos yet.", class_="soft")])])


def kind_of(discussion: Discussion) -> str:
    """Return the status and the kind of a discussion."""
    return f"{discussion.status} {'pull request' if discussion.is_pull_request else 'discussion'}"


def show_discussions(call: Call) -> Response:
    """Show the discussions and pull requests of a repo, newest first."""
    repository, settings = call.readable_files()
    rows = []
    for number in sorted(pulls.numbers(repository), reverse=True)[:ROWS_LIMIT]:
        found = pulls.find(repository, number)
        title = link(discussion_address(settings, number), f"{found.title} (#{number})")
        rows.append(
            [
                tag("td", title),
                tag("td", kind_of(found)),
                tag("td", found.author),
                tag("td", format_date(found.created_at), class_="number"),
            ]
        )
    listed = table(rows, class_="list") if rows else tag("p", "There are none yet.", class_="soft")
    content = [*render_heading(settings), tag("h2", "Discussions and pull requests"), listed]
    return html_page(f"Discussions of {settings.id}", content)


def list_entries(repository: Repository, settings: Settings, discussion: Discussion) -> list[Html]:
    """Return what was said in a discussion and the commits of a pull request, oldest first."""
    entries: list[tuple[str, str, Html]] = []
    for event in discussion.events:
        if event.type == "comment":
            shown = tag("pre", str(event.data.get("text", "")), tabindex="0")
        else:
            shown = tag("p", " ".join([event.type, *(f"{name}: {value}" for name, value in event.data.items())]))
        entries.append((event.created_at, event.author, shown))
    if discussion.is_pull_request:
        for found, commit in pulls.commits(repository, discussion):
            target = link(revision_address(settings, "commit", found), commit.title)
            entries.append((commit.date, commit.author, tag("p", "commit ", target)))
    parts = []
    for date, author, shown in sorted(entries, key=lambda entry: entry[0])[:ROWS_LIMIT]:
        parts.append(tag("article", tag("p", f"{author} · {format_date(date)}", class_="soft"), shown))
    return parts


def show_discussion(call: Call) -> Response:
    """Show a discussion; of a pull request, also where its files are."""
    try:
        repository, settings, found = find_readable(call)
    except NotFound as error:
        _, settings = call.readable_files()
        return not_found_page(error.message, [tag("p", link(discussion_address(settings), "All discussions"))])
    about = [f"{kind_of(found)} by {found.author} · {format_date(found.created_at)}"]
    if found.is_pull_request:
        revision = f"refs/pr/{found.number}"
        about += [" · files at ", link(tree_address(settings, revision), revision)]
    if found.merge_commit is not None:
        target = revision_address(settings, "commit", found.merge_commit)
        about += [" · merged in ", link(target, found.merge_commit[:7], class_="commit")]
    content = [
        *render_heading(settings),
        tag("h2", f"{found.title} (#{found.number})"),
        tag("p", *about, class_="soft"),
        *list_entries(repository, settings, found),
    ]
    return html_page(f"{found.title} · {settings.id}", content)


ROUTES = [
    *repo_page_routes(show_discussions, "/discussions"),
    *repo_page_routes(show_discussion, "/discussions/{number}"),
    page_route("/{namespace}", show_owner),
]
