"""Temporary folder, atomic writes and locks of the embedded Hub.

A file is written in the temporary folder and renamed to its final name by `hubmerge.support.files`. A reader sees the
old content or the new content, never a part, even if the process is killed or the power fails.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hubmerge.support.files import make_folder, remove_folder, rename_durably, write_bytes_atomic

POLL_SECONDS = 0.01
"""Time between two attempts to take a lock that another thread or process holds."""


def move_into_place(temporary: Path, final: Path) -> None:
    """Rename a flushed temporary file to its final name; make the folder of that name if it is missing."""
    make_folder(final.parent)
    rename_durably(temporary, final)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file `path` against all other threads and processes.

    The operating system releases the lock when the process ends, also if it is killed.
    """
    make_folder(path.parent)
    # One lock object for each use: it is then a lock against the other threads of this process, too.
    with FileLock(path, mode=0o600, thread_local=False, poll_interval=POLL_SECONDS):
        yield


class TemporaryFolder:
    """Folder of one process under `root/tmp`, on the file system of the final names.

    Each process locks its own folder. The next start removes the folders that no process locks.
    """

    def __init__(self, root: Path) -> None:
        self._parent = root / "tmp"
        make_folder(self._parent)
        self.folder = self._parent / f"{os.getpid()}-{secrets.token_hex(6)}"
        with locked(root / "locks" / "tmp"):
            self._remove_abandoned()
            self._lock = _lock_of(self.folder)
            self._lock.acquire()
            self.folder.mkdir()

    def _remove_abandoned(self) -> None:
        for lock_file in self._parent.glob("*.lock"):
            folder = lock_file.with_suffix("")
            lock = _lock_of(folder)
            try:
                lock.acquire()
            except Timeout:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            _remove_lock_file(lock)
            lock.release()

    def new_path(self) -> Path:
        """Return an unused path for a temporary file or folder."""
        return self.folder / secrets.token_hex(12)

    def write(self, final: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Replace the content of `final` in one move."""
        make_folder(final.parent)
        write_bytes_atomic(final, content, temporary=self.new_path(), mode=mode)

    def write_json(self, final: Path, value: Any, *, mode: int = 0o644) -> None:
        """Replace the content of `final` by `value` as JSON in one move."""
        self.write(final, json.dumps(value, indent=1, sort_keys=True).encode(), mode=mode)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder; half of it never remains under its name."""
        remove_folder(folder, temporary=self.new_path())

    def close(self) -> None:
        """Remove the folder and release its lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        _remove_lock_file(self._lock)
        self._lock.release()


def _remove_lock_file(lock: FileLock) -> None:
    # Windows keeps a file that is open; filelock removes it there when the lock is released.
    with contextlib.suppress(PermissionError):
        Path(lock.lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    """Return the lock of a temporary folder, which is acquired at once or not at all."""
    return FileLock(folder.with_name(folder.name + ".lock"), timeout=0, mode=0o600, thread_local=False)
