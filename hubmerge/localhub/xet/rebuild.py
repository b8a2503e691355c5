"""Xorbs on the disk, and the files put together from them.

xorbs/ab/abcd...    every xorb ever received, for a later upload may reuse its chunks without sending them again
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, move_into_place
from hubmerge.localhub.objects import IncomingFile, ObjectStore
from hubmerge.localhub.refusals import BadRequest
from hubmerge.localhub.xet.formats import Chunk, ShardFile, Term, read_chunks, read_shard, unpack


class Xorbs:
    """The received xorbs."""

    def __init__(self, root: Path, store: ObjectStore, temporary: TemporaryFolder) -> None:
        self._folder = root / "xorbs"
        self._store = store
        self._temporary = temporary

    def path(self, name: str) -> Path:
        """Return the path of a xorb."""
        return self._folder / name[:2] / name

    def receive(self) -> IncomingFile:
        """Open a place for a xorb whose bytes are about to arrive."""
        return self._store.receive()

    def keep(self, incoming: IncomingFile, name: str) -> None:
        """Store a received xorb.

        Raises:
            BadRequest: it is not one.
        """
        temporary, _ = incoming.finish()
        with temporary.open("rb") as file:
            read_chunks(file, incoming.size)
        move_into_place(temporary, self.path(name))

    def keep_files(self, shard: bytes) -> None:
        """Put the files of a shard together and keep them as large files under their sha256.

        Raises:
            BadRequest: a xorb is missing, or the bytes are not what was announced.
        """
        for described in read_shard(shard):
            if described.sha256 is not None and self._store.lfs_size(described.sha256) is not None:
                continue
            incoming = self._store.receive()
            try:
                for content in self.contents(described):
                    incoming.write(content)
                if described.sha256 is None:
                    raise BadRequest("The shard has a file without its sha256.")
                self._store.keep(incoming, described.sha256, described.size)
            finally:
                incoming.discard()

    def contents(self, described: ShardFile) -> Iterator[bytes]:
        """Unpack the chunks of a file, in their order, one at a time."""
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
        """List the chunks of the xorb of a term."""
        path = self.path(term.xorb)
        if not path.is_file():
            raise BadRequest(f"The xorb {term.xorb} was not uploaded.")
        with path.open("rb") as file:
            return read_chunks(file, path.stat().st_size)
