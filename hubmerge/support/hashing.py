"""What a file holds, in one number, without reading it again where it cannot have changed."""

from __future__ import annotations

import hashlib
import json
import time
from functools import lru_cache
from pathlib import Path

from hubmerge.support.memo import recall, remember

LARGE_BYTES = 1 << 20
"""Smaller files are read again in every run."""

SETTLING_NS = 10 * 10**9
"""Where clocks are coarse, a file that was written to a moment ago may be again and look the same."""


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, 64 hex digits. A file that was not touched since is not read a second time.

    Of large files that is remembered from one run to the next.
    """
    return _content_digest(path, _touched(path))


def _touched(path: Path) -> tuple[int, ...]:
    """What differs once a file is written to, even if its name, its size and the time that it claims are the same."""
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=1 << 12)
def _content_digest(path: Path, touched: tuple[int, ...]) -> str:
    *_, size, modified, changed = touched
    settled = size >= LARGE_BYTES and 0 < max(modified, changed) < time.time_ns() - SETTLING_NS
    question = json.dumps(touched).encode()
    known = recall("file", question) if settled else None
    if isinstance(known, str) and len(known) == len(hashlib.sha256().hexdigest()):
        return known
    content = hashlib.sha256()
    room = memoryview(bytearray(1 << 18))
    with path.open("rb", buffering=0) as stream:
        while count := stream.readinto(room):
            content.update(room[:count])
    digest = content.hexdigest()
    if settled and _touched(path) == touched:
        remember("file", question, digest)
    return digest
