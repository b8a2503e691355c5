"""Listings of the Hub cache, for work without the Hub (`HF_HUB_OFFLINE=1`)."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants

from hubmerge.errors import HubError
from hubmerge.hub.remote_file import Kind, RemoteFile, snapshot_folder
from hubmerge.support.damage import SUFFIX

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB_ID = re.compile(r"[0-9a-f]{40}")


def is_offline() -> bool:
    """Return True if HF_HUB_OFFLINE forbids requests to the Hub."""
    return bool(constants.HF_HUB_OFFLINE)


def cached_files(repo: str, commit: str, subfolder: str = "", kind: Kind = "model") -> tuple[RemoteFile, ...]:
    """Return the files of a repo at a commit that are in the Hub cache, sorted by path.

    The cache names each file after the digest that the Hub listed for it, so that its content can be checked.

    Args:
        repo: the repo, owner/name.
        commit: the commit, 40 hex digits.
        subfolder: a folder in the repo; empty for the whole repo.
        kind: the kind of repo.

    Raises:
        HubError: the cache has no file of the commit.
    """
    snapshot = snapshot_folder(repo, commit, kind)
    paths = files_below(snapshot / subfolder)
    if not paths:
        option = " --repo-type dataset" if kind == "dataset" else ""
        raise HubError(
            f"files of {kind} {repo} at {commit}: HF_HUB_OFFLINE is set, and the Hub cache has no file of this commit",
            hint=f"HF_HUB_OFFLINE=0 hf download {repo}{option} --revision {commit}",
            repo=repo,
            commit=commit,
        )
    return tuple(cached_file(path, path.relative_to(snapshot).as_posix()) for path in paths)


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder of the Hub cache, without those that were set aside."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != SUFFIX]


def cached_file(path: Path, name: str) -> RemoteFile:
    """Return a file of the Hub cache with the digest that the Hub listed for it."""
    digest = path.resolve().name
    sha256 = digest if _SHA256.fullmatch(digest) else None
    return RemoteFile(name, path.stat().st_size, sha256, digest if _BLOB_ID.fullmatch(digest) else None)
