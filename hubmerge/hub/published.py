"""Published steps: their metadata files, the digests of all files, and rolling back to an earlier step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import HubError
from hubmerge.hub.checked_files import RemoteFile, download_checked
from hubmerge.hub.client import api
from hubmerge.hub.failures import status_of
from hubmerge.hub.fetch import download, find_commit, list_files, resolve_commit
from hubmerge.hub.publish import delete_tag
from hubmerge.hub.retry import call, create_commit
from hubmerge.support.names import CARD_FILE, LOCK_FILE, RECIPE_FILE, REPORT_FILE, parse_step_tag, step_tag

METADATA_FILES = (RECIPE_FILE, LOCK_FILE, REPORT_FILE, CARD_FILE)
"""Files of a published step that describe it. Every published step has all of them."""


@dataclass(frozen=True)
class PublishedStep:
    """A published step.

    Attributes:
        repo: the target repo.
        revision: the revision that was asked for.
        commit: the commit of the step.
        files: the digest of each file: SHA-256 for large files, git's SHA-1 for small ones.
        metadata_files: the text of each of `METADATA_FILES`; bytes that are no UTF-8 are replaced.
        sizes: the size of each file in bytes.
    """

    repo: str
    revision: str
    commit: str
    files: dict[str, str]
    metadata_files: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)


def read_published_step(repo: str, revision: str | None) -> PublishedStep:
    """Return the metadata files and the digests of all files of a published step.

    Args:
        repo: the target repo.
        revision: a branch, tag or commit; None for main.

    Raises:
        HubError: the repo or the revision is missing, or hubmerge did not publish it.
    """
    revision = revision or "main"
    commit = find_commit("model", repo, revision)
    if commit is None:
        raise _missing_step(repo, revision, published_tags(repo))
    subject = f"{repo} at {revision}"
    entries = call(f"files of {subject}", lambda: _entries(repo, commit), repo=repo, commit=commit)
    missing = [name for name in METADATA_FILES if name not in entries]
    if missing:
        raise HubError(
            f"{subject}: there is no {missing[0]}, so hubmerge did not publish this revision",
            hint="write a repo that `hubmerge run` published to, and one of its steps: owner/name@step-03",
            repo=repo,
            commit=commit,
            file=missing[0],
        )
    sizes = {path: int(entry.size) for path, entry in entries.items()}
    step = PublishedStep(repo, revision, commit, _digests(entries), {}, sizes)
    texts = {name: read_small_file(step, name).decode("utf-8", errors="replace") for name in METADATA_FILES}
    return replace(step, metadata_files=texts)


def read_small_file(step: PublishedStep, name: str) -> bytes:
    """Return the content of a file of a published step, compared with the digest that the Hub lists.

    Raises:
        HubError: the Hub does not respond, or the content does not have the digest.
    """
    return _download(step.repo, step.commit, name).read_bytes()


def download_published_step(step: PublishedStep) -> Path:
    """Download all files of a published step and return their folder."""
    return download(step.repo, step.commit, list_files(step.repo, step.commit))


def published_tags(repo: str) -> dict[int, str]:
    """Return the commit of each tagged step, in the order of the steps."""
    refs = call(f"tags of {repo}", lambda: api().list_repo_refs(repo), repo=repo)
    steps = {number: ref.target_commit for ref in refs.tags if (number := parse_step_tag(ref.name)) is not None}
    return dict(sorted(steps.items()))


def roll_back(repo: str, step: int) -> str:
    """Restore the files of an earlier step on main by one commit, delete the tags of later steps, return the commit.

    The later commits stay in the history.

    Raises:
        HubError: the step has no tag, or the token has no write access.
    """
    tags = published_tags(repo)
    if step not in tags:
        raise _missing_step(repo, step_tag(step), tags)
    head = resolve_commit("model", repo, "main")
    earlier = call(f"files of {repo}", lambda: _entries(repo, tags[step]), repo=repo, commit=tags[step])
    present = call(f"files of {repo}", lambda: _entries(repo, head), repo=repo, commit=head)
    operations = _restoring(repo, tags[step], earlier, present)
    title = f"Roll back to {step_tag(step)}"

    def restore() -> str:
        try:
            return create_commit(repo, operations, title, parent_commit=head)
        except HfHubHTTPError as error:
            # The response to an earlier attempt may have been lost, so the content of the repo decides.
            newest = resolve_commit("model", repo, "main") if status_of(error) == 412 else head
            if newest == head or _digests(_entries(repo, newest)) != _digests(earlier):
                raise
            return newest

    commit = call(f"rolling back {repo} to {step_tag(step)}", restore, repo=repo) if operations else head
    for later in tags:
        if later > step:
            delete_tag(repo, step_tag(later))
    return commit


def _restoring(repo: str, commit: str, earlier: dict[str, Any], present: dict[str, Any]) -> list[Any]:
    """Return the operations that turn the files `present` into those of an earlier commit."""
    operations: list[Any] = []
    for path, entry in earlier.items():
        if path in present and _digest(present[path]) == _digest(entry):
            continue
        if entry.lfs is not None:
            operations.append(CommitOperationCopy(path, path, src_revision=commit))
        else:
            operations.append(CommitOperationAdd(path, _download(repo, commit, path)))
    return operations + [CommitOperationDelete(path) for path in sorted(set(present) - set(earlier))]


def _missing_step(repo: str, revision: str, tags: dict[int, str]) -> HubError:
    known = ", ".join(step_tag(number) for number in tags) or "none"
    return HubError(f"{repo} has no revision {revision}", hint=f"published steps: {known}", repo=repo)


def _entries(repo: str, commit: str) -> dict[str, Any]:
    entries = api().list_repo_tree(repo, revision=commit, recursive=True)
    return {entry.path: entry for entry in entries if hasattr(entry, "size")}


def _digests(entries: dict[str, Any]) -> dict[str, str]:
    return {path: _digest(entry) for path, entry in entries.items()}


def _digest(entry: Any) -> str:
    return RemoteFile.of(entry).digest


def _download(repo: str, commit: str, name: str) -> Path:
    file = next(file for file in list_files(repo, commit) if file.path == name)
    return download_checked(repo, commit, file)
