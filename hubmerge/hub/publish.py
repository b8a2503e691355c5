"""Publishing to the Hub: the content of a target repo, one commit and one tag per step.

A commit names its parent, so two runs cannot overwrite each other. A repeated request finds its commit by content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hubmerge.errors import HubError, TargetError, TargetMovedError
from hubmerge.hub.checked_files import RemoteFile, list_entries
from hubmerge.hub.client import api, endpoint
from hubmerge.hub.explain import with_sentences
from hubmerge.hub.failures import TransientError, is_anonymous, status_of
from hubmerge.hub.fetch import download, list_files, read_checked, remove_unfinished_downloads
from hubmerge.hub.published import entry_digests
from hubmerge.hub.retry import call, create_commit
from hubmerge.hub.visibility import Visibility, visibility_of
from hubmerge.support.hashing import git_blob_id
from hubmerge.support.names import CARD_FILE, GIT_ATTRIBUTES, LOCK_FILE, REPORT_FILE, parse_history_file, step_tag
from hubmerge.support.paths import is_inside
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from hubmerge.support.text import listed

_KEPT = re.compile(
    r".*/.*|\.git[^/]*|(LICENSE|LICENCE|NOTICE|COPYING|AUTHORS|CITATION)[^/]*|.*\.(md|rst|pdf|cff|bib|png|jpe?g|gif|svg)",
    re.IGNORECASE,
)
"""Files that a merged model can have beside it: texts and pictures, and everything in subfolders."""

RESTORE_REPORT = "restore the file from the repo's history, or publish to another repo"


@dataclass(frozen=True)
class Target:
    """The content of a target repo at its newest commit.

    Attributes:
        repo: the repo, owner/name.
        head: the newest commit, or None if there is no repo.
        files: the paths of all files.
        report: the parsed report, or None if nothing is published.
        lock: the text of the lock, or None if nothing is published.
        tags: the commit of each tag.
        digests: the digest of each file: SHA-256 for large files, git's SHA-1 for small ones.
        card: the text of the card, or None if there is none.
        visibility: who can read the repo.
    """

    repo: str
    head: str | None
    files: frozenset[str]
    report: dict[str, Any] | None
    lock: str | None
    tags: dict[str, str]
    digests: dict[str, str] = field(default_factory=dict)
    card: str | None = None
    visibility: Visibility = "public"


def read_target(repo: str) -> Target:
    """Return the content of a target repo; a repo that does not exist counts as empty.

    Raises:
        TargetError: the repo has files that hubmerge did not publish.
        HubError: the Hub refuses or does not respond.
    """
    subject = f"target repo {repo}"
    remove_unfinished_downloads(repo)
    head = call(subject, lambda: _head(repo), repo=repo)
    if head is None:
        return Target(repo, None, frozenset(), None, None, {})
    commit, visibility = head
    digests = _list_files(repo, commit)
    refs = call(f"tags of {subject}", lambda: api().list_repo_refs(repo), repo=repo)
    files, tags = frozenset(digests), {ref.name: ref.target_commit for ref in refs.tags}
    if REPORT_FILE not in files:
        foreign = sorted(path for path in files if not _KEPT.fullmatch(path))
        if foreign:
            raise TargetError(
                f"{subject} has files that hubmerge did not publish: {listed(foreign)}",
                hint="write another repo under publish.repo, or delete these files",
                repo=repo,
                commit=commit,
            )
        return Target(repo, commit, files, None, None, tags, digests, _card(repo, commit, files), visibility)
    report = _parse_report(_read_text(repo, commit, REPORT_FILE), repo, commit)
    lock = _read_text(repo, commit, LOCK_FILE) if LOCK_FILE in files else None
    return Target(repo, commit, files, report, lock, tags, digests, _card(repo, commit, files), visibility)


def _head(repo: str) -> tuple[str, Visibility] | None:
    """Return the newest commit of a repo and its visibility, None if there is no repo."""
    try:
        info = api().model_info(repo)
    except RepositoryNotFoundError as error:
        if is_anonymous(error):
            raise HubError(
                with_sentences(f"target repo {repo}: not visible on {endpoint()} without an access token", error),
                hint="run `hf auth login`, or set HF_TOKEN; with write access, a run creates a missing repo",
                repo=repo,
            ) from error
        return None
    return None if info.sha is None else (info.sha, visibility_of(info))


def _list_files(repo: str, commit: str) -> dict[str, str]:
    digests = entry_digests(list_entries(repo, commit))
    return {path: digest for path, digest in digests.items() if is_inside(path)}


def _card(repo: str, commit: str, files: frozenset[str]) -> str | None:
    if CARD_FILE not in files:
        return None
    return read_bytes(repo, commit, CARD_FILE).decode(errors="replace").replace("\r\n", "\n")


def _parse_report(text: str, repo: str, commit: str) -> dict[str, Any]:
    try:
        report = read_strict_json(text)
    except StrictJSONError:
        report = None
    steps = report.get("steps") if isinstance(report, dict) else None
    if not isinstance(steps, list) or not all(map(_is_step, steps)):
        message = f"target repo {repo}: {REPORT_FILE} is not a report of published steps"
        raise TargetError(message, hint=RESTORE_REPORT, repo=repo, commit=commit, file=REPORT_FILE)
    return dict(report)


def _is_step(value: object) -> bool:
    """Return True if a value in the list of steps can be asked for its keys and its inputs."""
    return isinstance(value, dict) and isinstance(value.get("inputs", []), list)


def read_bytes(repo: str, commit: str, file: str) -> bytes:
    """Return the content of a small file of a target."""
    return read_checked(repo, commit, file) or b""


def _read_text(repo: str, commit: str, file: str) -> str:
    try:
        return read_bytes(repo, commit, file).decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"target repo {repo}: {file} is not UTF-8 text"
        raise TargetError(message, hint=RESTORE_REPORT, repo=repo, commit=commit, file=file) from error


def download_head(target: Target) -> Path:
    """Download all files of a target's newest commit and return their folder.

    Raises:
        TargetError: nothing is published yet.
        HubError: the Hub refuses or does not respond.
    """
    if target.head is None:
        raise TargetError(
            f"target repo {target.repo} is empty", hint="run `hubmerge run recipe.yaml` first", repo=target.repo
        )
    return download(target.repo, target.head, list_files(target.repo, target.head))


def create_target(repo: str, *, private: bool) -> str | None:
    """Create the target repo unless it exists, and return its newest commit.

    Raises:
        HubError: the token has no permission to create the repo.
    """
    subject = f"target repo {repo}"
    call(
        f"creating {subject}",
        lambda: api().create_repo(repo, private=private, exist_ok=True),
        repo=repo,
        publishes=True,
    )
    return call(subject, lambda: api().model_info(repo).sha, repo=repo)


def publish_step(
    repo: str,
    folder: Path,
    *,
    step: int,
    name: str,
    parent: str | None,
    present: frozenset[str],
    history: Mapping[str, Path] | None = None,
) -> str:
    """Publish the files of a folder as one commit on main, and return the commit.

    Files of the step before that are not in the folder are deleted in this commit, except the reports of earlier steps.

    Args:
        repo: the target repo.
        folder: the files of the step.
        step: the step, counted from 1.
        name: the name of the merged checkpoint, for the title of the commit.
        parent: the expected newest commit of the repo.
        present: the files at that commit that hubmerge published; others are neither replaced nor deleted.
        history: reports of single steps that the repo lacks, by their paths in the repo.

    Raises:
        TargetMovedError: another writer committed to the repo in the meantime.
        HubError: the Hub refuses or does not respond.
    """
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()} | dict(history or {})
    operations = _operations(files, present, step)
    title = f"{step_tag(step)}: merge {name}"
    report = files[REPORT_FILE].read_bytes()
    subject = f"publishing {step_tag(step)} to {repo}"
    # A commit without changes is not created: the client then returns the newest commit of the repo.
    commit = call(subject, lambda: _commit_step(repo, operations, title, parent), repo=repo)
    if call(subject, lambda: _has_report(repo, commit, report), repo=repo, commit=commit):
        return commit
    raise _moved(repo, step, parent, commit)


def _moved(repo: str, step: int, parent: str | None, commit: str) -> TargetMovedError:
    return TargetMovedError(
        f"target repo {repo} changed during step {step}: expected the newest commit {parent}, found {commit}",
        hint="another run or person published there; run again to continue from the new commit",
        repo=repo,
        commit=commit,
    )


def _operations(files: Mapping[str, Path], present: frozenset[str], step: int) -> list[Any]:
    """Return the operations that add the files of a step and delete those that it no longer has."""
    kept = {GIT_ATTRIBUTES, *files, *(path for path in present if (parse_history_file(path) or step + 1) <= step)}
    added = [CommitOperationAdd(path, local) for path, local in sorted(files.items())]
    return [*added, *(CommitOperationDelete(old) for old in sorted(present - kept))]


def _commit_step(repo: str, operations: list[Any], title: str, parent: str | None) -> str:
    """Create the commit of a step; if the repo has a newer commit than `parent`, return that one instead."""
    try:
        return create_commit(repo, operations, title, parent_commit=parent)
    except HfHubHTTPError as error:
        if status_of(error) != 412:
            raise
        newest = api().model_info(repo).sha or ""
        if newest == parent:
            raise TransientError("the Hub refuses the commit as outdated, but has no newer commit") from error
        return newest


def _has_report(repo: str, commit: str, report: bytes) -> bool:
    """Return True if a commit has exactly this report, so that it is the commit of the step."""
    found = [RemoteFile.of(entry) for entry in api().get_paths_info(repo, [REPORT_FILE], revision=commit)]
    return [file.digest for file in found] in ([hashlib.sha256(report).hexdigest()], [git_blob_id(report)])


def tag_step(repo: str, step: int, commit: str) -> None:
    """Tag the commit of a step, unless the tag exists and names this commit.

    Raises:
        TargetError: the tag names another commit.
        HubError: the Hub refuses or does not respond.
    """
    tag = step_tag(step)
    subject = f"tag {tag} of {repo}"
    call(
        subject,
        lambda: api().create_tag(repo, tag=tag, revision=commit, exist_ok=True),
        repo=repo,
        commit=commit,
        publishes=True,
    )
    found = call(subject, lambda: api().model_info(repo, revision=tag).sha, repo=repo)
    if found != commit:
        raise TargetError(
            f"tag {tag} of {repo} names commit {found}, but step {step} was published as commit {commit}",
            hint=f"delete the tag {tag} on the Hub, then run again",
            repo=repo,
            commit=found,
        )


def delete_tag(repo: str, tag: str) -> None:
    """Delete a tag, if it exists."""

    def delete() -> None:
        try:
            api().delete_tag(repo, tag=tag)
        except RevisionNotFoundError:
            return

    call(f"tag {tag} of {repo}", delete, repo=repo, publishes=True)


def step_url(repo: str, step: int) -> str:
    """Return the web address of a published step."""
    return f"{endpoint()}/{repo}/tree/{step_tag(step)}"
