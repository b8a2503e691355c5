"""Reads and writes at a position of an open file, also on systems without `preadv` and `pwrite`, such as Windows."""

from __future__ import annotations

import os
import threading

OPEN_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every `os.open`: not inherited by child processes, and without conversion of line ends."""

_MAX_READ_BYTES = 1 << 30

_moved = threading.Lock()
"""Held while a position is set and used, on systems that cannot do both at once."""


def read_at(descriptor: int, target: memoryview, offset: int) -> int:
    """Fill `target` with bytes and return their number, which is smaller if the file ends before.

    Args:
        descriptor: the open file.
        target: the memory to fill.
        offset: the position of the first byte in the file.
    """
    done = 0
    while done < len(target) and (count := _read_some(descriptor, target[done:], offset + done)):
        done += count
    return done


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` from the position `offset` on."""
    while len(data):
        count = _write_some(descriptor, data, offset)
        data = data[count:]
        offset += count


def _read_some(descriptor: int, target: memoryview, offset: int) -> int:
    target = target[:_MAX_READ_BYTES]
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], offset)
    with _moved:
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(target))
    target[: len(data)] = data
    return len(data)


def _write_some(descriptor: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _moved:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)
