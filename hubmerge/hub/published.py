"""Published steps: their metadata files, and the digests of all files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hubmerge.errors import HubError, UsageError
from hubmerge.hub.checked_files import RemoteFile, download_checked, is_sha256, list_entries
from hubmerge.hub.client import api
from hubmerge.hub.fetch import download, find_commit, list_files
from hubmerge.hub.offline import cached_tags, is_offline, record_commit
from hubmerge.hub.retry import call
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import (
    CARD_FILE,
    LOCK_FILE,
    RECIPE_FILE,
    REPORT_FILE,
    STATE_FOLDER,
    parse_step_tag,
    step_tag,
)

METADATA_FILES = (RECIPE_FILE, LOCK_FILE, REPORT_FILE, CARD_FILE)
"""Files of a published step that describe it. Every published step has all of them."""

_CLIENT_FOLDER = ".cache/"
"""Folder that `hf download --local-dir` writes beside the files."""


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
        folder: the folder of a step on this machine, whose files have SHA-256 digests; None for a step on the Hub.
    """

    repo: str
    revision: str
    commit: str
    files: dict[str, str]
    metadata_files: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def is_alone(self) -> bool:
        """True for a step in a folder or offline: other commits, tags and states of the repo cannot be read."""
        return self.folder is not None or is_offline()


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
        raise missing_step(repo, revision, published_tags(repo))
    if not is_offline():
        record_commit(repo, revision, commit)
    subject = f"{repo} at {revision}"
    entries = list_entries(repo, commit)
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
    step = PublishedStep(repo, revision, commit, entry_digests(entries), {}, sizes)
    texts = {name: read_small_file(step, name).decode("utf-8", errors="replace") for name in METADATA_FILES}
    return replace(step, metadata_files=texts)


def read_small_file(step: PublishedStep, name: str) -> bytes:
    """Return the content of a file of a published step, compared with the digest that the Hub lists.

    Raises:
        HubError: the Hub does not respond, or the content does not have the digest.
    """
    return step_file(step, name).read_bytes()


def step_file(step: PublishedStep, name: str) -> Path:
    """Return a file of a published step on this machine, after downloading it if necessary."""
    return download_file(step.repo, step.commit, name) if step.folder is None else step.folder / name


def step_has_content(step: PublishedStep, name: str, sha256: str) -> bool:
    """Return True if a file of a published step has a SHA-256."""
    digest = step.files[name]
    return (digest if is_sha256(digest) else file_digest(step_file(step, name))) == sha256


def read_step_folder(folder: Path) -> PublishedStep:
    """Return the files of a step in a folder that `hubmerge run --out` wrote, or that was downloaded.

    Raises:
        UsageError: the folder is not that of a step.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    beside = (_CLIENT_FOLDER, f"{STATE_FOLDER}/")
    files = {name: path for name, path in paths.items() if not name.startswith(beside)}
    missing = [name for name in METADATA_FILES if name not in files]
    if missing:
        raise UsageError(
            f"{folder}: there is no {missing[0]}, so this is not a step that hubmerge wrote",
            hint="name a folder that `hubmerge run --out` wrote, or a repo: owner/name@step-03",
            file=str(folder),
        )
    texts = {name: files[name].read_bytes().decode("utf-8", errors="replace") for name in METADATA_FILES}
    digests = {name: file_digest(path) for name, path in files.items()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return PublishedStep(str(folder), "", "", digests, texts, sizes, folder)


def download_published_step(step: PublishedStep) -> Path:
    """Download all files of a published step and return their folder."""
    if step.folder is not None:
        return step.folder
    return download(step.repo, step.commit, list_files(step.repo, step.commit))


def published_tags(repo: str) -> dict[int, str]:
    """Return the commit of each tagged step, in the order of the steps; offline, of those in the Hub cache."""
    if is_offline():
        return cached_tags(repo)
    refs = call(f"tags of {repo}", lambda: api().list_repo_refs(repo), repo=repo)
    steps = {number: ref.target_commit for ref in refs.tags if (number := parse_step_tag(ref.name)) is not None}
    return dict(sorted(steps.items()))


def missing_step(repo: str, revision: str, tags: dict[int, str]) -> HubError:
    """Return the error for a step that is not published."""
    known = ", ".join(step_tag(number) for number in tags) or "none"
    return HubError(f"{repo} has no revision {revision}", hint=f"published steps: {known}", repo=repo)


def entry_digests(entries: dict[str, Any]) -> dict[str, str]:
    """Return the digest of each file."""
    return {path: entry_digest(entry) for path, entry in entries.items()}


def entry_digest(entry: Any) -> str:
    """Return the digest of a file: SHA-256 for large files, git's SHA-1 for small ones."""
    return RemoteFile.of(entry).digest


def has_content(repo: str, commit: str, path: str, digest: str, sha256: str) -> bool:
    """Return True if a file at a commit has a SHA-256. A small file is downloaded: the Hub lists git's digest of it.

    Args:
        repo: the repo.
        commit: the commit.
        path: the file.
        digest: its digest, as the Hub lists it.
        sha256: the expected SHA-256.
    """
    return (digest if is_sha256(digest) else file_digest(download_file(repo, commit, path))) == sha256


def download_file(repo: str, commit: str, name: str) -> Path:
    """Download one file at a commit and return its path."""
    file = next(file for file in list_files(repo, commit) if file.path == name)
    return download_checked(repo, commit, file)
