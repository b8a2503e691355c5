"""Binary formats of a Xet upload: xorbs and shards. All numbers are little-endian.

A **xorb** is a sequence of chunks. Each has an 8-byte header: version (1 byte, 0), stored length (3), compression (1: 0
none, 1 LZ4 frame, 2 LZ4 frame of the bytes grouped by their position modulo 4), length (3). A footer may follow.

A **shard** begins with a 48-byte header (tag 32, version 8, footer length 8); then, per file, records of 48 bytes:
the file's head (hash 32, flags 4, number of terms 4, unused 8), its terms (xorb hash 32, flags 4, length in bytes 4,
first chunk 4, end chunk 4), as many verification records if flag bit 31 is set, and one record that begins with the
SHA-256 if flag bit 30 is set. A head whose hash is all ones ends the list.

A hash is written as text in four groups of 16 hex digits, each the little-endian number of 8 of its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from hubmerge.localhub.refusals import BadRequest

RECORD_BYTES = 48
SHARD_TAG = b"HFRepoMetaData\0"
SHARD_VERSION = 2
WITH_VERIFICATION = 1 << 31
WITH_SHA256 = 1 << 30
CHUNK_HEADER_BYTES = 8
PLAIN, LZ4, GROUPED_LZ4 = 0, 1, 2
MOST_CHUNKS = 16_384
"""Chunks of a xorb. The clients pack 8192 at most."""
MOST_TERMS = 200_000
"""Terms of a file."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Place of a chunk in its xorb: offset and stored length of its data, and its compression."""

    offset: int
    stored: int
    compression: int
    length: int


@dataclass(frozen=True, slots=True)
class Term:
    """Consecutive chunks `[first, end)` of a xorb; `length` is the unpacked size in bytes."""

    xorb: str
    first: int
    end: int
    length: int


@dataclass(frozen=True)
class ShardFile:
    """File as a sequence of terms."""

    sha256: str | None
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        """The size in bytes."""
        return sum(term.length for term in self.terms)


def hash_text(raw: bytes) -> str:
    """Return a hash as text, as in addresses."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def read_chunks(file: BinaryIO, size: int) -> tuple[Chunk, ...]:
    """Return the chunks of a xorb of `size` bytes; a footer is not read.

    Raises:
        BadRequest: the bytes are not a xorb.
    """
    chunks: list[Chunk] = []
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(CHUNK_HEADER_BYTES)
        if header.startswith(b"XETBLOB"):
            break
        if len(header) < CHUNK_HEADER_BYTES or header[0] != 0 or header[4] not in (PLAIN, LZ4, GROUPED_LZ4):
            raise BadRequest(f"Not a xorb: no chunk header at byte {offset}.")
        stored, length = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
        offset += CHUNK_HEADER_BYTES
        if offset + stored > size:
            raise BadRequest(f"Not a xorb: the chunk at byte {offset} is truncated.")
        if len(chunks) >= MOST_CHUNKS:
            raise BadRequest(f"The xorb has too many chunks: expected at most {MOST_CHUNKS}.")
        chunks.append(Chunk(offset, stored, header[4], length))
        offset += stored
    return tuple(chunks)


def unpack(chunk: Chunk, stored: bytes) -> bytes:
    """Return the decompressed bytes of a chunk.

    Raises:
        BadRequest: the bytes cannot be decompressed to the announced length.
    """
    if chunk.compression == PLAIN:
        content = stored
    else:
        # Imported late: pyarrow is large, and only Xet uploads need it.
        import pyarrow

        try:
            content = pyarrow.Codec("lz4").decompress(stored, chunk.length).to_pybytes()
        except (OSError, ValueError) as error:
            raise BadRequest(f"A chunk cannot be decompressed: {error}") from error
        if chunk.compression == GROUPED_LZ4:
            content = ungroup(content)
    if len(content) != chunk.length:
        raise BadRequest(f"A chunk has {len(content)} bytes, expected {chunk.length}.")
    return content


def ungroup(grouped: bytes) -> bytes:
    """Restore the order of bytes that were grouped by their position modulo 4."""
    content = bytearray(len(grouped))
    start = 0
    for position in range(4):
        end = start + len(range(position, len(grouped), 4))
        content[position::4] = grouped[start:end]
        start = end
    return bytes(content)


def read_shard(content: bytes | bytearray) -> Iterator[ShardFile]:
    """Yield the files of a shard.

    Raises:
        BadRequest: the bytes are not a shard of the known version.
    """
    tag, version, _ = struct.unpack_from("<32sQQ", content) if len(content) >= RECORD_BYTES else (b"", 0, 0)
    if not tag.startswith(SHARD_TAG) or version != SHARD_VERSION:
        raise BadRequest("Not a shard of version 2.")
    offset = RECORD_BYTES
    while True:
        head = content[offset : offset + RECORD_BYTES]
        if len(head) < RECORD_BYTES:
            raise BadRequest("The shard is truncated.")
        if head[:32] == b"\xff" * 32:
            return
        flags, count = struct.unpack_from("<II", head, 32)
        records = 1 + count * (2 if flags & WITH_VERIFICATION else 1) + bool(flags & WITH_SHA256)
        following = offset + records * RECORD_BYTES
        if following > len(content):
            raise BadRequest("The shard is truncated.")
        if count > MOST_TERMS:
            raise BadRequest(f"A file of the shard has too many terms: expected at most {MOST_TERMS}.")
        terms = []
        for place in range(offset + RECORD_BYTES, offset + (1 + count) * RECORD_BYTES, RECORD_BYTES):
            length, first, end = struct.unpack_from("<III", content, place + 36)
            terms.append(Term(hash_text(bytes(content[place : place + 32])), first, end, length))
        last = content[following - RECORD_BYTES : following]
        yield ShardFile(hash_text(bytes(last[:32])) if flags & WITH_SHA256 else None, tuple(terms))
        offset = following
