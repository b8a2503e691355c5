"""Record of the large files that each user has uploaded.

uploads/<user>/ab/abcd...    empty files; the user's folder is named by the SHA-256 of the user's name

A large file is stored once for all repos, so its SHA-256 alone must not give access to it: a caller adds a stored file
to a repo only after uploading its bytes, or if the repo already has the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder
from hubmerge.localhub.users import User


class Possession:
    """Uploads of all users of a Hub folder."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        self._folder = root / "uploads"
        self._temporary = temporary

    def _path(self, name: str, sha256: str) -> Path:
        return self._folder / hashlib.sha256(name.encode()).hexdigest() / sha256[:2] / sha256

    def record(self, name: str, sha256: str) -> bool:
        """Record that the user of a name has uploaded a large file; return False if that was recorded before."""
        path = self._path(name, sha256)
        if path.exists():
            return False
        self._temporary.write(path, b"")
        return True

    def has(self, user: User, sha256: str) -> bool:
        """Return True if a user has uploaded a large file; administrators may read all files."""
        return user.admin or self._path(user.name, sha256).exists()
