"""Store of xorbs, and assembly of files from their chunks.

xorbs/ab/abcd...    all received xorbs; a later upload can refer to their chunks without sending them again
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, move_into_place
from hubmerge.localhub.objects import ObjectStore, ReceivedFile
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.xet.formats import Chunk, ShardFile, Term, read_chunks, read_shard, unpack


class Xorbs:
    """Store of the received xorbs."""

    def __init__(self, root: Path, store: ObjectStore, temporary: TemporaryFolder) -> None:
        self._folder = root / "xorbs"
        self._store = store
        self._temporary = temporary

    def path(self, name: str) -> Path:
        """Return the path of a xorb."""
        return self._folder / name[:2] / name

    def receive(self) -> ReceivedFile:
        """Return a writer for a xorb."""
        return self._store.receive()

    def keep(self, received: ReceivedFile, name: str) -> None:
        """Store a received xorb.

        Raises:
            BadRequest: the bytes are not a xorb.
        """
        temporary, _ = received.finish()
        with temporary.open("rb") as file:
            read_chunks(file, received.size)
        move_into_place(temporary, self.path(name))

    def keep_files(self, shard: bytes) -> None:
        """Assemble the files of a shard, and store them as large files.

        Raises:
            BadRequest: a xorb is missing, or a file does not have the announced size and SHA-256.
        """
        for described in read_shard(shard):
            if described.sha256 is not None and self._store.lfs_size(described.sha256) is not None:
                continue
            received = self._store.receive()
            try:
                for content in self.contents(described):
                    received.write(content)
                if described.sha256 is None:
                    raise BadRequest("The shard has a file without sha256.")
                self._store.keep(received, described.sha256, described.size)
            finally:
                received.discard()

    def contents(self, described: ShardFile) -> Iterator[bytes]:
        """Yield the decompressed chunks of a file, in order."""
        known: dict[str, tuple[Chunk, ...]] = {}
        for term in described.terms:
            if term.xorb not in known:
                known[term.xorb] = self.chunks(term)
            chunks = known[term.xorb][term.first : term.end]
            if len(chunks) != term.end - term.first or sum(chunk.length for chunk in chunks) != term.length:
                raise BadRequest(f"The xorb {term.xorb} has no chunks {term.first} to {term.end}.")
            with self.path(term.xorb).open("rb") as file:
                for chunk in chunks:
                    file.seek(chunk.offset)
                    yield unpack(chunk, file.read(chunk.stored))

    def chunks(self, term: Term) -> tuple[Chunk, ...]:
        """Return the chunks of the xorb of a term."""
        path = self.path(term.xorb)
        if not path.is_file():
            raise BadRequest(f"The xorb {term.xorb} was not uploaded.")
        with path.open("rb") as file:
            return read_chunks(file, path.stat().st_size)
