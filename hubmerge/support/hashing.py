"""SHA-256 of a file, and the digest git has of it, cached while size and timestamps are unchanged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from hubmerge.support import interrupts, memo

Algorithm = Literal["sha256", "sha1"]

LARGE_BYTES = 1 << 20
"""Size from which a digest is kept across runs, in bytes; smaller files are read again in every run."""

SETTLING_NS = 10 * 10**9
"""Age from which timestamps are trusted, in nanoseconds: with coarse clocks, two writes in a row may look like one."""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits.

    A file is read again only if its size, inode or one of its timestamps has changed. The digests of large files are
    kept across runs.
    """
    return _content_digest(_File(_stamp(path), path))


def git_blob_digest(path: Path) -> str:
    """Return git's SHA-1 of a file as 40 hex digits; the file is read as seldom as by `file_digest`."""
    return _content_digest(_File(_stamp(path), path), "sha1")


def git_blob_id(content: bytes) -> str:
    """Return the digest by which git identifies a file of this content, 40 hex digits."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_digest(path: Path, size: int, algorithm: Algorithm) -> str:
    """Read a file and return its digest in hex digits; nothing is remembered.

    Args:
        path: the file.
        size: its size in bytes.
        algorithm: `sha256`, or `sha1` for the digest by which git identifies a file: of a short header and the content.
    """
    content = hashlib.sha256()
    if algorithm == "sha1":
        content = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    buffer = memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            interrupts.check()
            content.update(buffer[:count])
    return content.hexdigest()


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with every write, even if size and modification time are set back."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


_trusted: set[tuple[str, str]] = set()
"""Kinds of checks and stamps of files that this process wrote itself, with checksums of what it wrote."""


def trust_written(kind: str, paths: Sequence[Path]) -> None:
    """Skip the next checks of files that this process has just written, as long as their stamps are unchanged.

    Later processes skip them too, unless the clock of the file system is coarse.

    Args:
        kind: the kind of check, as in `check_once`.
        paths: the files.
    """
    stamps = [_stamp(path) for path in paths]
    key = json.dumps(stamps)
    _trusted.add((kind, key))
    if all(stamp[-1] % 10**9 for stamp in stamps):
        memo.put(kind, key.encode(), "same")


def check_once(kind: str, paths: Sequence[Path], check: Callable[[], None]) -> None:
    """Call a function that checks files, unless it succeeded before and no stamp of the files has changed since.

    Args:
        kind: the kind of check; part of the key under which the success is kept.
        paths: the files.
        check: the function; it raises if a file is damaged.
    """
    stamps = [_stamp(path) for path in paths]
    settled = all(_is_settled(stamp) for stamp in stamps)
    key = json.dumps(stamps).encode()
    if (kind, key.decode()) in _trusted or (settled and memo.get(kind, key, str) is not None):
        return
    check()
    if settled and [_stamp(path) for path in paths] == stamps:
        memo.put(kind, key, "same")


@dataclass(frozen=True)
class _File:
    """A file by its stamp: another name of the file makes no difference."""

    stamp: tuple[int, ...]
    path: Path = field(compare=False)


def _is_settled(stamp: tuple[int, ...]) -> bool:
    return 0 < max(stamp[-2:]) < time.time_ns() - SETTLING_NS


@lru_cache(maxsize=1 << 12)
def _content_digest(file: _File, algorithm: Algorithm = "sha256") -> str:
    path, stamp = file.path, file.stamp
    size = stamp[2]
    settled = size >= LARGE_BYTES and _is_settled(stamp)
    key = json.dumps(stamp).encode()
    kind = "blob" if algorithm == "sha1" else "file"
    known = memo.get(kind, key, str) if settled else None
    if known is not None and len(known) == 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size:
        return known
    digest = read_digest(path, size, algorithm)
    if settled and _stamp(path) == stamp:
        memo.put(kind, key, digest)
    return digest
