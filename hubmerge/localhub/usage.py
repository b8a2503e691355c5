"""Bytes that each user has sent, and their limit: `usage/<user>`, for the users that have a quota.

A user's file is named by the SHA-256 of the user's name. Nothing is ever removed from the object store, so deleting a
repo frees nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.refusals import Forbidden
from hubmerge.localhub.users import User


class Usage:
    """Bytes sent by all users of a Hub folder."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        self._folder = root / "usage"
        self._lock = root / "locks" / "usage"
        self._temporary = temporary

    def _path(self, user: User) -> Path:
        return self._folder / hashlib.sha256(user.name.encode()).hexdigest()

    def of(self, user: User) -> int:
        """Return the number of bytes that a user has sent since the quota was set."""
        try:
            return int(self._path(user).read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

    def check(self, user: User | None, size: int) -> None:
        """Check that a user may send more bytes.

        Raises:
            Forbidden: it would be more than the user's quota.
        """
        if user is None or user.quota_bytes is None:
            return
        used = self.of(user)
        if used + size > user.quota_bytes:
            raise Forbidden(
                f"Your storage quota is used up: {used} of {user.quota_bytes} bytes are in use, {size} more are needed."
            )

    def add(self, user: User | None, size: int) -> None:
        """Record that a user has sent more bytes."""
        if user is None or user.quota_bytes is None:
            return
        with locked(self._lock):
            self._temporary.write(self._path(user), str(self.of(user) + size).encode())
