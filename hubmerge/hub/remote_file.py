"""Files of the Hub with the digests that it lists, and their folders in the Hub cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repo at one commit.

    Attributes:
        path: the path in the repo.
        size: the size in bytes.
        sha256: the digest of an LFS file, None for other files.
        blob_id: git's digest of a file that is not LFS, None if it is not known.
    """

    path: str
    size: int
    sha256: str | None = field(default=None, compare=False)
    blob_id: str | None = field(default=None, compare=False)

    @property
    def digest(self) -> str:
        """The digest that the Hub lists, empty if it is not known: SHA-256 of an LFS file, else git's SHA-1."""
        return self.sha256 or self.blob_id or ""

    @classmethod
    def of(cls, entry: Any) -> RemoteFile:
        """Return the file of an entry in a listing of the Hub, or a file of the Hub cache as it is."""
        if isinstance(entry, RemoteFile):
            return entry
        if entry.lfs is not None:
            return cls(entry.path, int(entry.size), sha256=str(entry.lfs.sha256))
        return cls(entry.path, int(entry.size), blob_id=entry.blob_id)


def snapshot_folder(repo: str, commit: str, kind: Kind) -> Path:
    """Return the folder of a commit in the Hub cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind) / "snapshots" / commit
