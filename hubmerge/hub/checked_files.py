"""Files of the Hub, checked against the digests that the Hub lists for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from hubmerge.errors import HubError
from hubmerge.hub.cached_files import cached_files, is_offline
from hubmerge.hub.client import api
from hubmerge.hub.remote_file import Kind, RemoteFile, snapshot_folder
from hubmerge.hub.retry import call
from hubmerge.support import interrupts
from hubmerge.support.damage import SUFFIX, set_aside, set_aside_files_among
from hubmerge.support.hashing import Algorithm, file_digest, git_blob_digest, read_digest
from hubmerge.support.progress import WorkCounter, current_counter

__all__ = [
    "Kind",
    "RemoteFile",
    "StoppableBar",
    "check_blob",
    "check_cached_files",
    "counted_bar",
    "difference",
    "download_checked",
    "find_file",
    "is_sha256",
    "list_entries",
    "snapshot_folder",
    "stored_file",
]

_SHA256_LENGTH = 64


class StoppableBar(tqdm):
    """Progress bar of a download, which ends the download after a signal."""

    counter: WorkCounter | None = None

    def update(self, n: float | None = 1) -> bool | None:
        """Count received bytes."""
        interrupts.check()
        if self.counter is not None:
            self.counter.add(n or 0)
        return super().update(n)


def counted_bar() -> type[StoppableBar]:
    """Return a bar that counts received bytes for the stage of this thread, whichever thread receives them."""
    return type("CountedBar", (StoppableBar,), {"counter": current_counter()})


def difference(path: Path, file: RemoteFile) -> str | None:
    """Return how a local file differs from the listing of the Hub, None if its content is what the Hub lists.

    A file is read again only if its size, inode or one of its timestamps has changed.

    Args:
        path: the local file.
        file: the file as the Hub lists it.
    """
    try:
        if not path.is_file():
            return "not a file"
        size = path.stat().st_size
        if size != file.size:
            return f"{size} bytes on disk, {file.size} bytes on the Hub"
        if file.sha256 is not None:
            return None if file_digest(path) == file.sha256 else "another sha256 than on the Hub"
        if file.blob_id is not None:
            return None if git_blob_digest(path) == file.blob_id else "another git blob id than on the Hub"
    except OSError as error:
        return f"not readable: {error.strerror or error}"
    return None


def download_checked(repo: str, commit: str, file: RemoteFile, *, kind: Kind = "model") -> Path:
    """Return a file in the Hub cache whose content is what the Hub lists, after downloading it if necessary.

    A damaged file of the cache is set aside and downloaded again.

    Args:
        repo: the repo, owner/name.
        commit: the commit, 40 hex digits.
        file: the file as the Hub lists it.
        kind: the kind of repo.

    Raises:
        HubError: the Hub refuses, or it sends other content than it lists.
        MachineError: the file cannot be written to disk.
    """
    subject = f"{file.path} of {kind} {repo} at {commit}"
    fetch = partial(hf_hub_download, repo, file.path, revision=commit, repo_type=kind, tqdm_class=counted_bar())
    set_aside_files_among(_cache_folders(repo, commit, file, kind))
    for attempt in range(2):
        local = Path(call(subject, fetch, repo=repo, commit=commit, file=file.path))
        problem = difference(local, file)
        if problem is None:
            return local
        if attempt == 0:
            set_aside(stored_file(local), problem)
    raise HubError(
        f"{subject}: {problem}",
        hint="the Hub sends other content than it lists: run again later, or report it to the Hub",
        repo=repo,
        commit=commit,
        file=file.path,
    )


def check_blob(path: Path, listed: str) -> bool:
    """Return True if a file has the digest that the Hub lists for it. The file is always read.

    Args:
        path: the file.
        listed: the digest, as `RemoteFile.digest`.
    """
    algorithm: Algorithm = "sha256" if is_sha256(listed) else "sha1"
    return read_digest(path, path.stat().st_size, algorithm) == listed


def is_sha256(digest: str) -> bool:
    """Return True for a SHA-256, which the Hub lists for large files, False for git's SHA-1 of a small one."""
    return len(digest) == _SHA256_LENGTH


def check_cached_files(kind: Kind, repo: str, commit: str) -> tuple[str, ...]:
    """Read the files of a commit in the Hub cache, and download those again that do not have the listed digest.

    Unlike `download_checked`, this remembers no digests of files that look unchanged.

    Args:
        kind: the kind of repo.
        repo: the repo, owner/name.
        commit: the commit, 40 hex digits.

    Returns:
        The names of the files that were damaged.

    Raises:
        HubError: the Hub refuses, or it sends other content than it lists.
    """
    folder = snapshot_folder(repo, commit, kind)
    if not folder.is_dir():
        return ()
    listed = {path: RemoteFile.of(entry) for path, entry in list_entries(repo, commit, kind).items()}
    damaged = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != SUFFIX):
        name = path.relative_to(folder).as_posix()
        if name not in listed:
            set_aside(path, "not in the repo at this commit")
        elif not check_blob(path, listed[name].digest):
            set_aside(stored_file(path), "another digest than on the Hub")
            download_checked(repo, commit, listed[name], kind=kind)
        else:
            continue
        damaged.append(name)
    return tuple(damaged)


def list_entries(repo: str, commit: str, kind: Kind = "model") -> dict[str, Any]:
    """Return the entry of each file of a repo at a commit, as the Hub lists it; offline, those in the Hub cache.

    Raises:
        HubError: the Hub refuses or does not respond.
    """
    if is_offline():
        return {file.path: file for file in cached_files(repo, commit, kind=kind)}
    entries = call(
        f"files of {kind} {repo} at {commit}",
        lambda: list(api().list_repo_tree(repo, revision=commit, recursive=True, repo_type=kind)),
        repo=repo,
        commit=commit,
    )
    return {entry.path: entry for entry in entries if hasattr(entry, "size")}


def find_file(repo: str, commit: str, path: str, kind: Kind = "model") -> RemoteFile | None:
    """Return one file of a repo at a commit as the Hub lists it, None if there is none; offline, from the Hub cache.

    Raises:
        HubError: the Hub refuses or does not respond.
    """
    if is_offline():
        return next((file for file in cached_files(repo, commit, kind=kind) if file.path == path), None)
    entries = call(
        f"{path} of {kind} {repo} at {commit}",
        lambda: api().get_paths_info(repo, [path], revision=commit, repo_type=kind),
        repo=repo,
        commit=commit,
        file=path,
    )
    return next((RemoteFile.of(entry) for entry in entries if hasattr(entry, "size")), None)


def _cache_folders(repo: str, commit: str, file: RemoteFile, kind: Kind) -> Iterator[Path]:
    """Yield the folders of the Hub cache that a file needs, from the outside in."""
    snapshot = snapshot_folder(repo, commit, kind)
    root = snapshot.parents[1]
    locks = root.parent / ".locks"
    yield from (locks, locks / root.name, root, root / "blobs", snapshot.parent)
    yield snapshot
    for parent in reversed(Path(file.path).parents[:-1]):
        yield snapshot / parent


def stored_file(local: Path) -> Path:
    """Return the file that a link of a snapshot points to if it is in the cache of the repo, else the link itself."""
    stored = local.resolve()
    return stored if local.is_symlink() and stored.parent.name == "blobs" and stored.exists() else local
