"""Write to the Hub: one atomic commit per step on main, then its tag; and read back what a target repo holds.

A commit names the parent it was made for, so that two runs against one target cannot overwrite each other. A commit
whose answer was lost on the way is recognised by its content when it is asked for again.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import HubError, TargetError, TargetMovedError
from hubmerge.hub.client import TransientError, api, call, create_commit, is_anonymous, no_token, status_of
from hubmerge.hub.fetch import download, list_files, remove_unfinished_downloads
from hubmerge.support.names import CARD_FILE, LOCK_FILE, REPORT_FILE, parse_step_tag, step_tag
from hubmerge.support.paths import is_inside

IGNORABLE = frozenset({".gitattributes", CARD_FILE, "LICENSE"})
"""Files of a target repo that do not make it somebody else's model: what the Hub's web page creates."""


@dataclass(frozen=True)
class Target:
    """What a repo to publish to holds at its newest commit.

    `report` and `lock` are the parsed `hubmerge.json` and the text of `hubmerge.lock.yaml`, or None in a repo where
    nothing was published yet. `tags` maps a tag to the commit it names.
    """

    repo: str
    head: str | None
    files: frozenset[str]
    report: dict[str, Any] | None
    lock: str | None
    tags: dict[str, str]


def read_target(repo: str) -> Target:
    """Return what the target repo holds; a repo that does not exist reads as one that holds nothing.

    Raises:
        TargetError: the repo holds something that hubmerge did not publish.
        HubError: the Hub does not answer, or refuses.
    """
    what = f"target repo {repo}"
    remove_unfinished_downloads(repo)

    def head() -> str | None:
        try:
            return api().model_info(repo).sha
        except RepositoryNotFoundError as error:
            if is_anonymous(error):
                raise HubError(
                    f"{what}: no access token is set, and without one it cannot be seen on {api().endpoint}, nor made",
                    hint="run `hf auth login`, or set HF_TOKEN to a token with write access; "
                    "a repo that does not exist yet is then made by the run",
                ) from error
            return None

    commit = call(what, head)
    if commit is None:
        return Target(repo, None, frozenset(), None, None, {})
    files = frozenset(
        call(f"files of {what}", lambda: [file.path for file in _tree(repo, commit)]),
    )
    refs = call(f"tags of {what}", lambda: api().list_repo_refs(repo))
    tags = {ref.name: ref.target_commit for ref in refs.tags}
    if REPORT_FILE not in files:
        foreign = sorted(files - IGNORABLE)
        if foreign:
            raise TargetError(
                f"{what} already holds something that hubmerge did not publish: {', '.join(foreign[:5])}",
                hint="name another repo under publish.repo, or empty this one",
            )
        return Target(repo, commit, files, None, None, tags)
    report = _as_report(_read_text(repo, commit, REPORT_FILE), what)
    lock = _read_text(repo, commit, LOCK_FILE) if LOCK_FILE in files else None
    return Target(repo, commit, files, report, lock, tags)


def _tree(repo: str, commit: str) -> list[Any]:
    entries = api().list_repo_tree(repo, revision=commit, recursive=True)
    return [entry for entry in entries if hasattr(entry, "size") and is_inside(entry.path)]


def _as_report(text: str, what: str) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as error:
        report = error
    if not isinstance(report, dict) or not isinstance(report.get("steps"), list):
        raise TargetError(
            f"{what}: its {REPORT_FILE} is not a report of published steps",
            hint="restore the file from the repo's history, or publish to another repo",
        )
    return report


def _read_text(repo: str, commit: str, file: str) -> str:
    path = call(f"{file} of {repo} at {commit}", lambda: api().hf_hub_download(repo, file, revision=commit))
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(
            f"target repo {repo}: its {file} is not text", hint="restore the file from the repo's history"
        ) from error


def download_head(target: Target) -> Path:
    """Download everything at the target's newest commit and return the folder."""
    if target.head is None:
        raise TargetError(f"target repo {target.repo} holds nothing", hint="run the recipe first")
    return download(target.repo, target.head, list_files(target.repo, target.head))


def create_target(repo: str, *, private: bool) -> str | None:
    """Create the target repo if it is not there, and return its newest commit.

    Raises:
        HubError: the token may not create repos under that name.
    """
    what = f"target repo {repo}"
    call(f"creating {what}", lambda: api().create_repo(repo, private=private, exist_ok=True))
    return call(what, lambda: api().model_info(repo).sha)


def check_token(repo: str) -> None:
    """Refuse early when the token can certainly not publish: none at all, not accepted, or for reading only."""
    if no_token():
        raise HubError(
            f"publishing to {repo} on {api().endpoint} needs a token with write access",
            hint="set HF_TOKEN, or run `hf auth login`",
        )
    if os.environ.get("HF_OIDC_RESOURCE"):
        return  # a token of trusted publishing is made for this one repo and is nobody's account
    account = call(f"who may publish to {repo}", lambda: api().whoami())
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(f"publishing to {repo}: this token may only read", hint="use a token with write access")


def publish_step(repo: str, folder: Path, *, step: int, name: str, parent: str | None, present: frozenset[str]) -> str:
    """Publish the files of `folder` as one commit on main, and return the commit.

    Files of an earlier step that this one does not have are removed in the same commit. `parent` is the commit the
    repo must still stand at; `present` are the files it holds there.

    Raises:
        TargetMovedError: somebody else committed to the repo meanwhile.
    """
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in names]
    operations += [CommitOperationDelete(old) for old in sorted(present - {*names, ".gitattributes"})]
    title = f"{step_tag(step)}: merge {name}"
    report = (folder / REPORT_FILE).read_bytes()

    def commit() -> str:
        try:
            return create_commit(repo, operations, title, parent_commit=parent)
        except HfHubHTTPError as error:
            if status_of(error) != 412:
                raise
            now = api().model_info(repo).sha or ""
            if now == parent:
                raise TransientError("the Hub refuses the commit as outdated, and shows no newer one") from error
            return now

    def is_ours() -> bool:
        # Where nothing would change, the client makes no commit and returns whatever the repo stands at.
        history = api().list_repo_commits(repo, revision=made)
        ours = [one.commit_id for one in history[:2]] == [made, parent] and history[0].title == title
        return ours or _holds(repo, made, report)

    made = call(f"publishing {step_tag(step)} to {repo}", commit)
    if call(f"publishing {step_tag(step)} to {repo}", is_ours):
        return made
    raise TargetMovedError(
        f"target repo {repo} moved while step {step} was being made: it stood at {parent}, now at {made}",
        hint="another run or person published there; run again to continue from what is there now",
    )


def _holds(repo: str, commit: str, report: bytes) -> bool:
    """Tell whether the commit is the very one whose answer was lost: its report is ours to the byte."""
    try:
        path = api().hf_hub_download(repo, REPORT_FILE, revision=commit)
    except RemoteEntryNotFoundError:
        return False
    return Path(path).read_bytes() == report


def tag_step(repo: str, step: int, commit: str) -> None:
    """Tag the commit of a step; a tag that is already there must name the same commit.

    Raises:
        TargetError: the tag names another commit.
    """
    tag = step_tag(step)
    call(f"tag {tag} of {repo}", lambda: api().create_tag(repo, tag=tag, revision=commit, exist_ok=True))
    found = call(f"tag {tag} of {repo}", lambda: api().model_info(repo, revision=tag).sha)
    if found != commit:
        raise TargetError(
            f"tag {tag} of {repo} names commit {found}, but step {step} was published as {commit}",
            hint=f"delete the tag {tag} on the Hub, then run again",
        )


def delete_tag(repo: str, tag: str) -> None:
    """Remove a tag; one that is not there is removed already."""

    def delete() -> None:
        try:
            api().delete_tag(repo, tag=tag)
        except RevisionNotFoundError:
            return

    call(f"tag {tag} of {repo}", delete)


def step_commits(repo: str) -> dict[int, str]:
    """Return which commit on main published which step, read from the commit titles."""
    commits = call(f"history of {repo}", lambda: list(api().list_repo_commits(repo)))
    found: dict[int, str] = {}
    for commit in commits:
        step = parse_step_tag(commit.title.partition(":")[0])
        if step is not None:
            found.setdefault(step, commit.commit_id)
    return found


def step_url(repo: str, step: int) -> str:
    """Return the web address of a published step."""
    return f"{api().endpoint}/{repo}/tree/{step_tag(step)}"
