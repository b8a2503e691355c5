"""Files of a commit in the Hub cache, for work without the Hub (`HF_HUB_OFFLINE=1`) and for other libraries."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

from hubmerge.errors import HubError
from hubmerge.hub.checked_files import Kind, RemoteFile, difference, snapshot_folder, stored_file
from hubmerge.support.damage import set_aside

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_ID = re.compile(r"[0-9a-f]{40}")


def is_offline() -> bool:
    """Return True if HF_HUB_OFFLINE forbids requests to the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def cached_files(repo: str, commit: str, subfolder: str = "") -> tuple[RemoteFile, ...]:
    """Return the files of a model repo at a commit that are in the Hub cache, sorted by path.

    The cache names each file after the digest that the Hub listed for it, so that its content can be checked.

    Args:
        repo: the repo, owner/name.
        commit: the commit, 40 hex digits.
        subfolder: a folder in the repo; empty for the whole repo.

    Raises:
        HubError: the cache has no file of the commit.
    """
    snapshot = snapshot_folder(repo, commit, "model")
    paths = _files_below(snapshot / subfolder)
    if not paths:
        raise HubError(
            f"files of model {repo} at {commit}: HF_HUB_OFFLINE is set, and the Hub cache has no file of this commit",
            hint=f"HF_HUB_OFFLINE=0 hf download {repo} --revision {commit}",
            repo=repo,
            commit=commit,
        )
    return tuple(_cached_file(path, path.relative_to(snapshot).as_posix()) for path in paths)


def set_aside_damaged_files(repo: str, commit: str, kind: Kind) -> None:
    """Set aside the files of a commit in the Hub cache whose content is not what their names say.

    A library that reads the cache downloads them again.
    """
    snapshot = snapshot_folder(repo, commit, kind)
    for path in _files_below(snapshot):
        problem = difference(path, _cached_file(path, path.relative_to(snapshot).as_posix()))
        if problem is not None:
            set_aside(stored_file(path), problem)


def _files_below(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _cached_file(path: Path, name: str) -> RemoteFile:
    digest = path.resolve().name
    sha256 = digest if _SHA256.fullmatch(digest) else None
    return RemoteFile(name, path.stat().st_size, sha256, digest if _BLOB_ID.fullmatch(digest) else None)


def refuse_unpinned(kind: str, path: str, revision: str | None) -> HubError:
    """Return the error for a reference that no lock pins."""
    return HubError(
        f"{kind} {path} at revision {revision or 'main'}: HF_HUB_OFFLINE is set, and no lock pins the commit",
        hint="make a lock beside the recipe while the Hub can be reached: HF_HUB_OFFLINE=0 hubmerge lock RECIPE",
        repo=path,
    )
