"""Uploads of large files in parts; each part is written at its offset in one temporary file."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder
from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.refusals import BadRequest, NotFound, TooMany

MOST_PARTS = 1000
"""Parts of a file. The parts of a larger file are larger."""
MOST_UPLOADS = 1000
"""Unfinished uploads of one user."""
IDLE_SECONDS = 3600.0
"""Time without a new part after which an upload makes room for another one."""
MOST_COMPLETED = 10_000
"""Completed uploads that are remembered, so that a repeated request succeeds."""


@dataclass
class PartWriter:
    """Writer of one part. The part counts as arrived after `finish`; a part that is sent again replaces the first."""

    upload: PartialUpload
    number: int
    _digest: hashlib._Hash = field(default_factory=lambda: hashlib.sha256(), init=False)
    _size: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._file = self.upload.path.open("r+b")
        self._file.seek((self.number - 1) * self.upload.part_bytes)
        self.upload.arrived.pop(self.number, None)

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            BadRequest: the part is longer than announced.
        """
        self._size += len(chunk)
        if self._size > self.upload.part_size(self.number):
            raise BadRequest(f"Part {self.number} is longer than {self.upload.part_size(self.number)} bytes.")
        self._file.write(chunk)
        self._digest.update(chunk)

    def finish(self) -> str:
        """Mark the part as arrived, and return its ETag.

        Raises:
            BadRequest: the part is shorter than announced.
        """
        self.close()
        if self._size != self.upload.part_size(self.number):
            raise BadRequest(
                f"Part {self.number} has {self._size} bytes, expected {self.upload.part_size(self.number)}."
            )
        self.upload.arrived[self.number] = self._digest.hexdigest()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class PartialUpload:
    """Large file of which some parts have arrived.

    user: the name of the uploader. arrived: part number, from 1 -> ETag. used: the time of the last use.
    """

    user: str
    sha256: str
    size: int
    part_bytes: int
    path: Path
    arrived: dict[int, str] = field(default_factory=dict)
    used: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """Record that the upload is in use."""
        self.used = time.monotonic()

    def check_number(self, number: int) -> int:
        """Return the number of a part, counted from 1.

        Raises:
            BadRequest: there is no part of this number.
        """
        if not 1 <= number <= self.part_count:
            raise BadRequest(f"There is no part {number}: the upload has {self.part_count} parts.")
        return number

    @property
    def part_count(self) -> int:
        """Number of parts of the file."""
        return -(-self.size // self.part_bytes)

    def part_size(self, number: int) -> int:
        """Return the size in bytes of part `number`."""
        return min(self.part_bytes, self.size - (number - 1) * self.part_bytes)


class Multiparts:
    """Unfinished uploads in parts of this process."""

    def __init__(self, store: ObjectStore, temporary: TemporaryFolder, part_bytes: int) -> None:
        self._store = store
        self._temporary = temporary
        self.part_bytes = part_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, PartialUpload] = {}
        self._completed: dict[str, PartialUpload] = {}

    def begin(self, user: str, sha256: str, size: int) -> tuple[str, PartialUpload]:
        """Open an upload, and return its key; the key is the permission to upload, so it is random.

        Raises:
            TooMany: the user has too many unfinished uploads.
        """
        with self._lock:
            own = {key: upload for key, upload in self._uploads.items() if upload.user == user}
            if len(own) >= MOST_UPLOADS:
                self._drop_idle(own)
            part_bytes = max(self.part_bytes, -(-size // MOST_PARTS))
            path = self._temporary.new_path()
            with path.open("wb") as file:
                os.truncate(file.fileno(), size)
            key = secrets.token_hex(24)
            self._uploads[key] = PartialUpload(user, sha256, size, part_bytes, path)
            return key, self._uploads[key]

    def pending_bytes(self, user: str) -> int:
        """Return the size of all unfinished uploads of a user."""
        with self._lock:
            return sum(upload.size for upload in self._uploads.values() if upload.user == user)

    def _drop_idle(self, own: dict[str, PartialUpload]) -> None:
        """Drop the upload of a user of which no part has arrived for the longest time.

        Raises:
            TooMany: parts of all of them have arrived lately.
        """
        key, upload = min(own.items(), key=lambda item: item[1].used)
        if time.monotonic() - upload.used < IDLE_SECONDS:
            raise TooMany(
                f"You have {len(own)} unfinished uploads in parts. Finish them, "
                f"or wait until one has had no new part for {IDLE_SECONDS / 60:g} minutes."
            )
        del self._uploads[key]
        upload.path.unlink(missing_ok=True)

    def find(self, key: str) -> PartialUpload:
        """Return the unfinished upload of a key.

        Raises:
            NotFound: there is none.
        """
        upload = self._uploads.get(key)
        if upload is None:
            raise NotFound(
                "This upload is unknown: it is finished, or the server was restarted. Start the upload again."
            )
        return upload

    def receive(self, key: str, number: int) -> PartWriter:
        """Return a writer for part `number`, counted from 1."""
        upload = self.find(key)
        upload.touch()
        return PartWriter(upload, upload.check_number(number))

    def check_key(self, key: str) -> None:
        """Raise NotFound if there is no unfinished or completed upload with a key."""
        if key not in self._completed:
            self.find(key)

    def complete(self, key: str, sha256: str, etags: dict[int, str]) -> PartialUpload:
        """Check the parts, store the file, and return the upload. A repeated call succeeds.

        Raises:
            BadRequest: parts are missing, or the bytes do not have the announced size and SHA-256.
        """
        completed = self._completed.get(key)
        if completed is not None and completed.sha256 == sha256:
            return completed
        upload = self.find(key)
        if sha256 != upload.sha256:
            raise BadRequest(f"This upload is for sha256 {upload.sha256}, not {sha256}.")
        if etags != upload.arrived or len(etags) != upload.part_count:
            raise BadRequest(f"{len(upload.arrived)} of {upload.part_count} parts arrived; the ETags must match them.")
        with self._lock:
            self._uploads.pop(key, None)
        try:
            self._store.keep_file(upload.path, upload.sha256, upload.size)
        finally:
            upload.path.unlink(missing_ok=True)
        with self._lock:
            self._completed[key] = upload
            upload.arrived.clear()
            if len(self._completed) > MOST_COMPLETED:
                del self._completed[next(iter(self._completed))]
        return upload
