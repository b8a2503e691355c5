"""Temporary folder, locks and atomic writes of the embedded Hub.

Files are written in the `Workspace` and renamed into place, see `hubmerge.support.files`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hubmerge.support.files import make_folder, remove_folder, rename_durably, write_bytes_atomic


def move_into_place(temporary: Path, final: Path) -> None:
    """Rename a flushed temporary file to its final name and flush the folder."""
    make_folder(final.parent)
    rename_durably(temporary, final)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against every other thread and process; a killed holder lets go by itself."""
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Workspace:
    """A temporary folder of this process under `root/tmp`, on the same file system as the final places.

    Each process holds a lock on its own folder. At start, the folders whose holder is gone are removed, and those
    of another server that runs on the same root are left alone.
    """

    def __init__(self, root: Path) -> None:
        self._parent = root / "tmp"
        make_folder(self._parent)
        self.folder = self._parent / f"{os.getpid()}-{secrets.token_hex(6)}"
        with locked(root / "locks" / "tmp"):
            self._sweep()
            self._holder = self._hold(self.folder)
            self.folder.mkdir()

    @staticmethod
    def _hold(folder: Path) -> int:
        descriptor = os.open(folder.with_name(folder.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _sweep(self) -> None:
        for lock in self._parent.glob("*.lock"):
            folder = lock.with_suffix("")
            try:
                descriptor = self._hold(folder)
            except BlockingIOError:
                continue
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
            os.close(descriptor)

    def new_path(self) -> Path:
        """Give a name nobody uses yet, for a temporary file or folder."""
        return self.folder / secrets.token_hex(12)

    def write(self, final: Path, content: bytes, *, mode: int = 0o644) -> None:
        """Replace `final` by `content` in one move."""
        make_folder(final.parent)
        write_bytes_atomic(final, content, temporary=self.new_path(), mode=mode)

    def write_json(self, final: Path, value: Any, *, mode: int = 0o644) -> None:
        """Replace `final` by `value` as JSON in one move."""
        self.write(final, json.dumps(value, indent=1, sort_keys=True).encode(), mode=mode)

    def remove_tree(self, folder: Path) -> None:
        """Take `folder` away in one move, then remove what it held."""
        remove_folder(folder, temporary=self.new_path())

    def close(self) -> None:
        """Remove the folder and let go of its lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.with_name(self.folder.name + ".lock").unlink(missing_ok=True)
        os.close(self._holder)
