"""Content-addressed store of the files of all repos.

objects/blob/ab/abcd...   regular files, named by their git blob SHA-1
objects/lfs/ab/abcd...    large files, named by their SHA-256
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, move_into_place
from hubmerge.localhub.refusals import BadRequest, DiskFull

COPY_BYTES = 1 << 20
SPARE_BYTES = 64 * 1024 * 1024
"""Room on the disk that uploads leave."""


def git_oid(kind: str, content: bytes) -> str:
    """Return the name of a git object: SHA-1 of its kind, its length, a zero byte and its content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file that git stores in place of a large file (git-lfs specification v1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_sha256(text: str) -> bool:
    """Return True if `text` is 64 lower-case hex digits; it is then safe as a file name."""
    return len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)


class ReceivedFile:
    """Temporary file of a large file that is being uploaded, hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def finish(self) -> tuple[Path, str]:
        """Flush to disk, and return the temporary path and the SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._path, self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the temporary file; do nothing if it was moved into place."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class ObjectStore:
    """Content-addressed files under `root/objects`. A stored file is never changed."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        self._root = root
        self._folder = root / "objects"
        self._temporary = temporary

    def blob_path(self, oid: str) -> Path:
        """Return the path of the regular file with the git blob SHA-1 `oid`."""
        return self._folder / "blob" / oid[:2] / oid

    def lfs_path(self, sha256: str) -> Path:
        """Return the path of the large file with this SHA-256."""
        return self._folder / "lfs" / sha256[:2] / sha256

    def add_blob(self, content: bytes) -> str:
        """Store a regular file, and return its git blob SHA-1."""
        oid = git_oid("blob", content)
        if not self.blob_path(oid).exists():
            self._temporary.write(self.blob_path(oid), content)
        return oid

    def lfs_size(self, sha256: str) -> int | None:
        """Return the size in bytes of a stored large file, or None if it is not stored."""
        try:
            return self.lfs_path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def check_room(self, size: int) -> None:
        """Check that the disk has room for an upload.

        Raises:
            DiskFull: it has not.
        """
        free = shutil.disk_usage(self._root).free - SPARE_BYTES
        if size > free:
            raise DiskFull(f"The disk of this Hub has no room for {size} bytes: {max(0, free)} are free.")

    def receive(self) -> ReceivedFile:
        """Return a writer for a large file."""
        return ReceivedFile(self._temporary.new_path())

    def keep(self, received: ReceivedFile, sha256: str, size: int) -> None:
        """Store a received large file under its SHA-256.

        Raises:
            BadRequest: the bytes do not have the announced size and SHA-256.
        """
        path, found = received.finish()
        if received.size != size:
            raise BadRequest(f"{received.size} bytes arrived, expected {size} for sha256 {sha256}.")
        if found != sha256:
            raise BadRequest(f"The uploaded bytes have sha256 {found}, expected {sha256}.")
        move_into_place(path, self.lfs_path(sha256))

    def keep_file(self, path: Path, sha256: str, size: int) -> None:
        """Check the temporary file `path`, and move it to its place under its SHA-256.

        Raises:
            BadRequest: the bytes do not have the announced size and SHA-256.
        """
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(COPY_BYTES):
                digest.update(chunk)
            os.fsync(file.fileno())
        found = path.stat().st_size
        if found != size or digest.hexdigest() != sha256:
            raise BadRequest(
                f"The uploaded parts make {found} bytes with sha256 {digest.hexdigest()}, "
                f"expected {size} bytes with sha256 {sha256}."
            )
        move_into_place(path, self.lfs_path(sha256))
