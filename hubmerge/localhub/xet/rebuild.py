"""Store of xorbs, and assembly of files from their chunks.

xorbs/users/<user>/ab/abcd...    xorbs by user; a later upload of the user can refer to their chunks
xorbs/ab/abcd...                 xorbs of version 0.1.0, for administrators

A user's folder is named by the SHA-256 of the user's name. The name of a xorb is not checked against its bytes, so
users do not share xorbs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, move_into_place
from hubmerge.localhub.objects import ObjectStore, ReceivedFile
from hubmerge.localhub.possession import Possession
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.usage import Usage
from hubmerge.localhub.users import User
from hubmerge.localhub.xet.formats import Chunk, ShardFile, Term, read_chunks, read_shard, unpack

MOST_OPEN_XORBS = 64
"""Xorbs whose lists of chunks are in memory while a file is assembled."""


class Xorbs:
    """Store of the received xorbs."""

    def __init__(
        self, root: Path, store: ObjectStore, possession: Possession, usage: Usage, temporary: TemporaryFolder
    ) -> None:
        self._folder = root / "xorbs"
        self._store = store
        self._possession = possession
        self._usage = usage
        self._temporary = temporary

    def path(self, user: User, name: str) -> Path:
        """Return the path of a user's xorb."""
        return self._folder / "users" / hashlib.sha256(user.name.encode()).hexdigest() / name[:2] / name

    def find(self, user: User, name: str) -> Path | None:
        """Return the path of a xorb that a user may refer to, or None."""
        older = self._folder / name[:2] / name
        paths = (self.path(user, name), older) if user.admin else (self.path(user, name),)
        return next((path for path in paths if path.is_file()), None)

    def receive(self) -> ReceivedFile:
        """Return a writer for a xorb."""
        return self._store.receive()

    def keep(self, received: ReceivedFile, user: User, name: str) -> None:
        """Store a received xorb.

        Raises:
            BadRequest: the bytes are not a xorb.
        """
        temporary, _ = received.finish()
        with temporary.open("rb") as file:
            read_chunks(file, received.size)
        self._usage.add(user, received.size)
        move_into_place(temporary, self.path(user, name))

    def keep_files(self, shard: bytes | bytearray, user: User) -> None:
        """Assemble the files of a shard from a user's xorbs, and store them as large files.

        Raises:
            DiskFull: a file is too large for the disk.
            Forbidden: a file is too large for the user's quota.
            BadRequest: a xorb is missing, or a file does not have the announced size and SHA-256.
        """
        for described in read_shard(shard):
            if described.sha256 is None:
                raise BadRequest("The shard has a file without sha256.")
            if self._is_uploaded(user, described.sha256):
                continue
            self._store.check_room(described.size)
            self._usage.check(user, described.size)
            received = self._store.receive()
            try:
                for content in self.contents(described, user):
                    received.write(content)
                self._store.keep(received, described.sha256, described.size)
            finally:
                received.discard()
            if self._possession.record(user.name, described.sha256):
                self._usage.add(user, described.size)

    def _is_uploaded(self, user: User, sha256: str) -> bool:
        return self._store.lfs_size(sha256) is not None and self._possession.has(user, sha256)

    def contents(self, described: ShardFile, user: User) -> Iterator[bytes]:
        """Yield the decompressed chunks of a file, in order."""
        known: dict[str, tuple[Path, tuple[Chunk, ...]]] = {}
        for term in described.terms:
            if term.xorb not in known:
                if len(known) >= MOST_OPEN_XORBS:
                    del known[next(iter(known))]
                known[term.xorb] = self.chunks(term, user)
            path, all_chunks = known[term.xorb]
            chunks = all_chunks[term.first : term.end]
            if len(chunks) != term.end - term.first or sum(chunk.length for chunk in chunks) != term.length:
                raise BadRequest(f"The xorb {term.xorb} has no chunks {term.first} to {term.end}.")
            with path.open("rb") as file:
                for chunk in chunks:
                    file.seek(chunk.offset)
                    yield unpack(chunk, file.read(chunk.stored))

    def chunks(self, term: Term, user: User) -> tuple[Path, tuple[Chunk, ...]]:
        """Return the path and the chunks of the xorb of a term."""
        path = self.find(user, term.xorb)
        if path is None:
            raise BadRequest(f"The xorb {term.xorb} was not uploaded.")
        with path.open("rb") as file:
            return path, read_chunks(file, path.stat().st_size)
