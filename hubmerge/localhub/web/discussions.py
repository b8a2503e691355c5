"""Discussions and pull requests over HTTP."""

from __future__ import annotations

from typing import Any

from hubmerge.localhub import pulls
from hubmerge.localhub.discussions import CLOSED, DRAFT, LONGEST_TITLE, OPEN, Discussion, Event, check_text
from hubmerge.localhub.refusals import BadRequest, Forbidden, NotFound
from hubmerge.localhub.repository import Repository, Settings
from hubmerge.localhub.users import User
from hubmerge.localhub.web.calls import REPO, Call, require_write, require_write_token, route
from hubmerge.localhub.web.parsing import optional_text, parse_number

DISCUSSIONS_PAGE = 50
ONE = REPO + "/discussions/{number}"


def find_readable(call: Call) -> tuple[Repository, Settings, Discussion]:
    """Return repo, settings and discussion of the address for a caller who may read the files.

    Raises:
        NotFound: the repo has no discussion of this number.
    """
    repository, settings = call.readable_files()
    number = parse_number(call.params["number"])
    if number is None:
        raise NotFound(f"There is no discussion {call.params['number']!r} in this repo.")
    return repository, settings, pulls.find(repository, number)


def find_for_comment(call: Call) -> tuple[Repository, Settings, User]:
    """Return repo, settings and caller for a new discussion or comment. It needs no write access to the repo."""
    repository, settings = call.readable_files()
    return repository, settings, require_write_token(call)


def find_for_change(call: Call) -> tuple[Repository, Settings, Discussion, User]:
    """Return repo, settings, discussion and caller, who is its author or may write to the repo.

    Raises:
        Forbidden: the caller is somebody else.
    """
    repository, settings, discussion = find_readable(call)
    user = require_write_token(call)
    if user.name != discussion.author and not user.may_write(settings.namespace, settings.id):
        raise Forbidden("Only its author and those who may write to the repo may change a discussion.")
    return repository, settings, discussion, user


def find_for_merge(call: Call) -> None:
    """Raise the refusal of a caller who may not merge the pull request of the address."""
    _, settings, _ = find_readable(call)
    require_write(call, settings.namespace, settings.id)


def describe(settings: Settings, discussion: Discussion) -> dict[str, Any]:
    """Return a discussion in the form of the API, without what was said."""
    return {
        "num": discussion.number,
        "title": discussion.title,
        "author": {"name": discussion.author, "fullname": discussion.author, "type": "user"},
        "repo": {"name": settings.id, "type": settings.kind},
        "status": discussion.status,
        "createdAt": discussion.created_at,
        "isPullRequest": discussion.is_pull_request,
        "numComments": sum(event.type == "comment" for event in discussion.events),
    }


def describe_event(event: Event) -> dict[str, Any]:
    """Return an entry of a discussion in the form of the API."""
    author = {"name": event.author, "fullname": event.author, "type": "user"}
    data = dict(event.data)
    if event.type == "comment":
        latest = {"raw": data["text"], "html": "", "updatedAt": event.created_at, "author": author}
        data = {"edited": False, "hidden": False, "latest": latest, "numEdits": 0, "history": []}
    return {"id": event.id, "type": event.type, "createdAt": event.created_at, "author": author, "data": data}


def list_discussions(call: Call) -> Any:
    """List discussions and pull requests, newest first."""
    repository, settings = call.readable_files()
    query = call.request.query_params
    kind, status, author = query.get("type", "all"), query.get("status", "all"), query.get("author")
    found = []
    for number in reversed(pulls.numbers(repository)):
        discussion = pulls.find(repository, number)
        if (
            kind in ("all", "pull_request" if discussion.is_pull_request else "discussion")
            and status in ("all", OPEN if discussion.status == DRAFT else discussion.status, discussion.status)
            and author in (None, discussion.author)
        ):
            found.append(describe(settings, discussion))
    start = (parse_number(query.get("p")) or 0) * DISCUSSIONS_PAGE
    return {"discussions": found[start : start + DISCUSSIONS_PAGE], "count": len(found), "start": start}


def show(call: Call) -> Any:
    """Describe a discussion with its entries; for a pull request, with its commits."""
    repository, settings, discussion = find_readable(call)
    events = list(discussion.events)
    described = describe(settings, discussion)
    if discussion.is_pull_request:
        for commit_id, commit in pulls.commits(repository, discussion):
            events.append(
                Event(commit_id[:24], "commit", commit.date, commit.author, {"subject": commit.title, "oid": commit_id})
            )
        described |= {
            "changes": {"base": f"refs/heads/{discussion.base}", "mergeCommitId": discussion.merge_commit},
            "filesWithConflicts": pulls.conflicts(repository, discussion) if discussion.takes_commits else [],
            "diff": "",
        }
    events.sort(key=lambda event: event.created_at)
    return described | {"events": [describe_event(event) for event in events]}


def create(call: Call) -> Any:
    """Open a discussion or a draft of a pull request."""
    repository, settings, user = find_for_comment(call)
    data = call.json()
    discussion = pulls.open_discussion(
        repository,
        optional_text(data, "title") or "",
        optional_text(data, "description") or "",
        user.name,
        is_pull_request=data.get("pullRequest") is True,
    )
    return {**describe(settings, discussion), "pullRequest": discussion.is_pull_request}


def comment(call: Call) -> Any:
    """Add a comment."""
    repository, _, user = find_for_comment(call)
    text = optional_text(call.json(), "comment") or ""
    _, _, discussion = find_readable(call)
    changed = pulls.change(repository, discussion.number, lambda found: found.with_comment(user.name, text))
    return {"newMessage": describe_event(changed.events[-1])}


def change_status(call: Call) -> Any:
    """Close or open a discussion."""
    repository, _, discussion, user = find_for_change(call)
    data = call.json()
    status, text = data.get("status"), optional_text(data, "comment") or ""
    if status not in (OPEN, CLOSED) or discussion.status not in (OPEN, CLOSED, DRAFT):
        raise BadRequest("The status of a discussion that is not merged can become open or closed.")

    def edit(found: Discussion) -> Discussion:
        found = found.with_comment(user.name, text) if text.strip() else found
        return found.with_event("status-change", user.name, {"status": status}, status=status)

    changed = pulls.change(repository, discussion.number, edit)
    return {"newStatus": describe_event(changed.events[-1])}


def change_title(call: Call) -> Any:
    """Change the title."""
    repository, _, discussion, user = find_for_change(call)
    title = check_text("title", optional_text(call.json(), "title") or "", LONGEST_TITLE)
    changed = pulls.change(
        repository,
        discussion.number,
        lambda found: found.with_event("title-change", user.name, {"from": found.title, "to": title}, title=title),
    )
    return {"newTitle": describe_event(changed.events[-1])}


def merge(call: Call) -> Any:
    """Merge a pull request."""
    repository, settings, discussion = find_readable(call)
    user = require_write(call, settings.namespace, settings.id)
    merged = pulls.merge(repository, discussion.number, user.name)
    return {"mergeCommitId": merged.merge_commit, "newStatus": describe_event(merged.events[-1])}


ROUTES = [
    route("GET", REPO + "/discussions", list_discussions),
    route("POST", REPO + "/discussions", create, find_for_comment),
    route("GET", ONE, show),
    route("POST", ONE + "/comment", comment, find_for_comment),
    route("POST", ONE + "/status", change_status, find_for_change),
    route("POST", ONE + "/title", change_title, find_for_change),
    route("POST", ONE + "/merge", merge, find_for_merge),
]
