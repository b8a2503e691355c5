"""Published steps as they lie on the Hub: their files' digests and their papers, and going back to one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from hubmerge.errors import HubError
from hubmerge.hub.client import api, call, create_commit, status_of
from hubmerge.hub.fetch import download, list_files, resolve_commit
from hubmerge.hub.publish import delete_tag
from hubmerge.support.names import CARD_FILE, LOCK_FILE, RECIPE_FILE, REPORT_FILE, parse_step_tag, step_tag

PAPERS = (RECIPE_FILE, LOCK_FILE, REPORT_FILE, CARD_FILE)


@dataclass(frozen=True)
class PublishedStep:
    """A published step: `files` maps each path to its digest, the sha256 of large files and git's of small ones."""

    repo: str
    revision: str
    commit: str
    files: dict[str, str]
    metadata_files: dict[str, str]


def read_published_step(repo: str, revision: str | None) -> PublishedStep:
    """Read what a repo holds at a revision (default: main).

    Raises:
        HubError: repo or revision is missing, or it is no step that hubmerge published.
    """
    revision = revision or "main"
    try:
        commit = resolve_commit("model", repo, revision)
    except HubError as error:
        if isinstance(error.__cause__, RevisionNotFoundError):
            raise _not_there(repo, revision, published_tags(repo)) from error
        raise
    what = f"{repo} at {revision}"
    entries = call(f"files of {what}", lambda: list(api().list_repo_tree(repo, revision=commit, recursive=True)))
    files = {entry.path: _digest(entry) for entry in entries if hasattr(entry, "size")}
    missing = [name for name in PAPERS if name not in files]
    if missing:
        raise HubError(
            f"{what}: no {missing[0]} there, so it is no step that hubmerge published",
            hint="name a repo that `hubmerge run` published to, and one of its steps: owner/name@step-03",
        )
    metadata_files = {name: _path(repo, commit, name).read_text(encoding="utf-8") for name in PAPERS}
    return PublishedStep(repo, revision, commit, files, metadata_files)


def download_published_step(release: PublishedStep) -> Path:
    """Download all files of a release and return the folder."""
    return download(release.repo, release.commit, list_files(release.repo, release.commit))


def published_tags(repo: str) -> dict[int, str]:
    """Return which steps are tagged, and each one's commit."""
    refs = call(f"tags of {repo}", lambda: api().list_repo_refs(repo))
    steps = {number: ref.target_commit for ref in refs.tags if (number := parse_step_tag(ref.name)) is not None}
    return dict(sorted(steps.items()))


def roll_back(repo: str, step: int) -> str:
    """Make main hold a step's files again, in one commit, and remove the tags of later steps; return the commit.

    Nothing is lost: the later commits stay in the history.

    Raises:
        HubError: the step is not tagged, or the token may not write.
    """
    tags = published_tags(repo)
    if step not in tags:
        raise _not_there(repo, step_tag(step), tags)
    head = resolve_commit("model", repo, "main")
    wanted = call(f"files of {repo}", lambda: _entries(repo, tags[step]))
    present = call(f"files of {repo}", lambda: _entries(repo, head))
    operations: list[Any] = []
    for path, entry in wanted.items():
        if path in present and _digest(present[path]) == _digest(entry):
            continue
        if entry.lfs is not None:
            operations.append(CommitOperationCopy(path, path, src_revision=tags[step]))
        else:
            operations.append(CommitOperationAdd(path, _path(repo, tags[step], path)))
    operations += [CommitOperationDelete(path) for path in sorted(set(present) - set(wanted))]
    title = f"Roll back to {step_tag(step)}"

    def commit_it() -> str:
        try:
            return create_commit(repo, operations, title, parent_commit=head)
        except HfHubHTTPError as error:
            # The answer to the same call a moment ago may have been lost: what counts is what is there now.
            now = resolve_commit("model", repo, "main") if status_of(error) == 412 else head
            if now == head or _digests(_entries(repo, now)) != _digests(wanted):
                raise
            return now

    commit = call(f"rolling {repo} back to {step_tag(step)}", commit_it) if operations else head
    for later in tags:
        if later > step:
            delete_tag(repo, step_tag(later))
    return commit


def _not_there(repo: str, revision: str, tags: dict[int, str]) -> HubError:
    known = ", ".join(step_tag(number) for number in tags) or "none"
    return HubError(f"{repo} has no {revision}", hint=f"the steps there are: {known}")


def _entries(repo: str, commit: str) -> dict[str, Any]:
    entries = api().list_repo_tree(repo, revision=commit, recursive=True)
    return {entry.path: entry for entry in entries if hasattr(entry, "size")}


def _digests(entries: dict[str, Any]) -> dict[str, str]:
    return {path: _digest(entry) for path, entry in entries.items()}


def _digest(entry: Any) -> str:
    return str(entry.lfs.sha256 if entry.lfs is not None else entry.blob_id)


def _path(repo: str, commit: str, name: str) -> Path:
    return Path(call(f"{name} of {repo}", lambda: api().hf_hub_download(repo, name, revision=commit)))
