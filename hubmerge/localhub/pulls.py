"""Discussions and pull requests of a repo: opened, found, changed and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hubmerge.localhub.discussions import (
    DRAFT,
    LONGEST_TITLE,
    MAX_DISCUSSIONS,
    MERGED,
    OPEN,
    Discussion,
    check_text,
)
from hubmerge.localhub.operations import Delete, Operation, Put
from hubmerge.localhub.records import Commit, now
from hubmerge.localhub.refnames import DEFAULT_BRANCH, HEADS, PULLS
from hubmerge.localhub.refusals import BadRequest, Conflict, NotFound, ParentMoved, RevisionMissing
from hubmerge.localhub.repository import Repository, is_same_commit


def numbers(repository: Repository) -> list[int]:
    """Return the numbers of all discussions and pull requests, oldest first."""
    pulls = {int(name) for name in repository.refs(PULLS) if name.isdigit()}
    return sorted(pulls | repository.discussions.numbers())


def _next_number(repository: Repository) -> int:
    taken = numbers(repository)
    if len(taken) >= MAX_DISCUSSIONS:
        raise BadRequest(f"The repo has {MAX_DISCUSSIONS} discussions and pull requests and takes no more.")
    return max(taken, default=0) + 1


def find(repository: Repository, number: int) -> Discussion:
    """Return a discussion or pull request.

    Raises:
        NotFound: the repo has none of this number.
    """
    found = repository.discussions.find(number)
    if found is not None:
        return found
    head = repository.ref(PULLS, str(number))
    if head is None:
        raise NotFound(f"There is no discussion {number} in this repo.")
    # Version 0.1.0 wrote the ref alone.
    commit = repository.commit(head)
    start = commit.parents[0] if commit.parents else head
    return Discussion(number, commit.title, commit.author, commit.date, OPEN, base=DEFAULT_BRANCH, start=start)


def open_discussion(repository: Repository, title: str, text: str, author: str, *, is_pull_request: bool) -> Discussion:
    """Open a discussion, or a draft of a pull request that has no changes yet.

    Raises:
        BadRequest: the title or the text is too long, or the repo has too many discussions.
    """
    title = check_text("title", title, LONGEST_TITLE)
    with repository.locked():
        number = _next_number(repository)
        draft = Discussion(number, title, author, now(), DRAFT if is_pull_request else OPEN)
        if is_pull_request:
            start = repository.resolve(DEFAULT_BRANCH)
            draft = replace(draft, base=DEFAULT_BRANCH, start=start)
        if text.strip():
            draft = draft.with_comment(author, text)
        if draft.start is not None:
            repository.write_ref(PULLS, str(number), draft.start)
        repository.discussions.write(draft)
    return draft


def propose(
    repository: Repository,
    revision: str,
    operations: Sequence[Operation],
    *,
    title: str,
    message: str,
    author: str,
    parent: str | None,
) -> tuple[int, str]:
    """Open a pull request with one commit on top of a revision, and return its number and the commit.

    Raises:
        ParentMoved: `parent` is given and is no commit of the revision's history.
        EntryMissing: a path to delete does not exist.
        BadRequest: a path would be both a file and a folder, or the repo has too many pull requests.
    """
    with repository.locked():
        start = repository.resolve(revision)
        if parent is not None:
            history = (found for found, _ in repository.history(start))
            known = next((found for found in history if is_same_commit(parent, found)), None)
            if known is None:
                raise ParentMoved(f"The commit {parent} is not in the history of {revision}.")
            start = known
        number = _next_number(repository)
        commit_id = repository.write_change(start, operations, title=title, message=message, author=author)
        base = revision.removeprefix("refs/heads/")
        base = base if repository.ref(HEADS, base) is not None else DEFAULT_BRANCH
        shown = check_text("title", title[:LONGEST_TITLE], LONGEST_TITLE)
        record = Discussion(number, shown, author, now(), OPEN, base=base, start=start)
        record = record.with_comment(author, message) if message.strip() else record
        # A pull request that has a ref and no record is shown with the title of its commit.
        repository.write_ref(PULLS, str(number), commit_id)
        repository.discussions.write(record)
    return number, commit_id


def change(repository: Repository, number: int, edit: Callable[[Discussion], Discussion]) -> Discussion:
    """Replace a discussion by the result of `edit`."""
    with repository.locked():
        return repository.discussions.write(edit(find(repository, number)))


def commits(repository: Repository, discussion: Discussion) -> Iterator[tuple[str, Commit]]:
    """Yield the commits of a pull request, newest first."""
    head = repository.ref(PULLS, str(discussion.number))
    if head is None:
        return
    for found, commit in repository.history(head):
        if found == discussion.start:
            return
        yield found, commit


def changes(repository: Repository, discussion: Discussion) -> list[Operation]:
    """Return what a pull request changes, as operations.

    Raises:
        RevisionMissing: its ref is missing.
    """
    head = repository.ref(PULLS, str(discussion.number))
    if head is None or discussion.start is None:
        raise RevisionMissing(f"Invalid rev id: refs/pr/{discussion.number}")
    before, after = repository.tree(discussion.start), repository.tree(head)
    removed = [Delete(path, folder=False) for path in before.keys() - after.keys()]
    return removed + [Put(path, entry) for path, entry in after.items() if before.get(path) != entry]


def conflicts(repository: Repository, discussion: Discussion) -> list[str]:
    """Return the paths that both a pull request and its branch have changed, each in its own way."""
    if discussion.base is None or discussion.start is None or repository.ref(HEADS, discussion.base) is None:
        return []
    before, now_there = repository.tree(discussion.start), repository.tree(repository.resolve(discussion.base))
    return sorted(
        operation.path
        for operation in changes(repository, discussion)
        if now_there.get(operation.path)
        not in (before.get(operation.path), operation.entry if isinstance(operation, Put) else None)
    )


def merge(repository: Repository, number: int, author: str) -> Discussion:
    """Commit the changes of a pull request to its branch.

    Raises:
        BadRequest: it is not a pull request, or its branch is gone.
        Conflict: it is closed or merged, or the branch has changed the same files.
        ParentMoved: somebody committed to the branch at the same time.
    """
    pull = find(repository, number)
    if pull.base is None:
        raise BadRequest(f"Discussion {number} is not a pull request.")
    if not pull.takes_commits:
        raise Conflict(f"Pull request {number} is {pull.status}.")
    head = repository.ref(HEADS, pull.base)
    if head is None:
        raise BadRequest(f"The branch {pull.base} of pull request {number} does not exist.")
    both = conflicts(repository, pull)
    if both:
        raise Conflict(f"The branch {pull.base} has other changes of the files: {', '.join(both[:10])}.")
    there = repository.tree(head)
    operations = [
        operation for operation in changes(repository, pull) if isinstance(operation, Put) or operation.path in there
    ]
    commit_id = repository.apply(
        HEADS, pull.base, operations, title=f"{pull.title} (#{number})", message="", author=author, parent=head
    )
    return change(
        repository,
        number,
        lambda found: found.with_event(
            "status-change", author, {"status": MERGED}, status=MERGED, merge_commit=commit_id
        ),
    )
