"""Work without the Hub (`HF_HUB_OFFLINE=1`): what the Hub cache has of a commit."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from hubmerge.errors import HubError
from hubmerge.hub.checked_files import RemoteFile

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
    snapshot = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots" / commit
    paths = [path for path in sorted((snapshot / subfolder).rglob("*")) if path.is_file()]
    if not paths:
        raise HubError(
            f"files of model {repo} at {commit}: HF_HUB_OFFLINE is set, and the Hub cache has no file of this commit",
            hint=f"HF_HUB_OFFLINE=0 hf download {repo} --revision {commit}",
            repo=repo,
            commit=commit,
        )
    return tuple(_cached_file(path, path.relative_to(snapshot).as_posix()) for path in paths)


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
