"""Safetensors files on another machine, of which only the tensors that are read are fetched.

    model.safetensors          as long as the whole file: its header, the fetched values, holes elsewhere
    model.safetensors.ranges   the ranges of the fetched values: a line `begin end sha256` for each, added once it is on
                               disk; a range whose bytes no longer match is fetched again

After an interruption at any time both files are valid, and no fetched value is fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.formats.ranges import Range, merge_ranges, missing_ranges, split_ranges
from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.support.files import atomic_file, write_error
from hubmerge.support.positions import OPEN_FLAGS, read_at, write_at

FetchBytes = Callable[[str, int, int], bytes]
"""A function that returns bytes of a file of the checkpoint: `fetch(file, offset, length)`."""

PIECE_BYTES = 16 << 20
"""Most bytes in one request: the loss at a fault, and the memory of one connection."""

GAP_BYTES = 64 << 10
"""Largest gap between two tensors that is fetched with them, because another request would take longer."""

CONNECTIONS = 4


class PartialFile(SafetensorsReader):
    """A file made with `create_partial_file`. Several threads may read.

    `prepare` fetches the tensors of one call in few, large requests, and `read` then finds them on disk. A tensor that
    was not prepared is fetched when it is read. Without `fetch`, as in another process, only the fetched tensors can be
    read.
    """

    def __init__(self, path: Path, origin: Origin, *, fetch: FetchBytes | None) -> None:
        super().__init__(path, origin)
        self._fetch = fetch
        self._fetch_lock = threading.Lock()
        self._present = merge_ranges(_read_record(path))

    @property
    def whole_file(self) -> Path | None:
        """None: bytes that no tensor needed yet are missing."""
        return None

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return the tensor in its stored dtype, in memory of its own, after fetching it if necessary.

        Raises:
            CheckpointError: the tensor is not on disk and cannot be fetched.
        """
        self.prepare([info])
        return super().read(info)

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Yield the tensor's values in pieces, after fetching all of them if necessary. Raise as `read` does."""
        self.prepare([info])
        return super().read_pieces(info, elements)

    def prepare(self, infos: Iterable[TensorInfo]) -> None:
        """Fetch those of the tensors that are not on disk."""
        requested = [(info.offset, info.offset + info.nbytes) for info in infos if info.nbytes]
        if not missing_ranges(requested, self._present):
            return
        with self._fetch_lock:
            missing = missing_ranges(requested, self._present)
            if not missing:
                return
            if self._fetch is None:
                raise self.origin.error(
                    f"bytes {missing[0][0]} to {missing[0][1]} were not fetched",
                    hint="run again with `fetch: cache` in the recipe, and please report this",
                )
            self._fetch_ranges(split_ranges(missing, PIECE_BYTES, GAP_BYTES), self._fetch)

    def _fetch_ranges(self, ranges: Sequence[Range], fetch: FetchBytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | OPEN_FLAGS)
        failed = threading.Event()

        def fetch_one(piece: Range) -> bool:
            if failed.is_set():
                return False
            begin, end = piece
            try:
                write_at(descriptor, memoryview(fetch(self.origin.file or self.path.name, begin, end - begin)), begin)
            except BaseException:
                failed.set()
                raise
            return True

        try:
            with ThreadPoolExecutor(CONNECTIONS, "ranges") as pool:
                tasks = {pool.submit(fetch_one, piece): piece for piece in ranges}
                for task in as_completed(tasks):
                    # Requests that were under way when another one failed still count.
                    if task.exception() is None and task.result():
                        self._record(descriptor, tasks[task])
            for task in tasks:
                task.result()
        except OSError as error:
            raise write_error(error, self.path, self.header.data_end) from error
        finally:
            os.close(descriptor)

    def _record(self, descriptor: int, piece: Range) -> None:
        os.fsync(descriptor)
        with ranges_path(self.path).open("rb+") as stream:
            whole_lines = stream.read().rfind(b"\n") + 1
            stream.seek(whole_lines)
            stream.truncate()
            digest = sha256(_read(descriptor, piece)).hexdigest()
            stream.write(f"{piece[0]} {piece[1]} {digest}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._present = merge_ranges([*self._present, piece])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_fetch": None, "_fetch_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_fetch_lock": threading.Lock()})


def ranges_path(path: Path) -> Path:
    """Return the record of the fetched ranges of `path`; where there is no such file, `path` is whole."""
    return path.with_name(f"{path.name}.ranges")


def is_partial_file(path: Path, size: int) -> bool:
    """Return True if `create_partial_file` made the file, with `size` bytes."""
    return ranges_path(path).is_file() and path.is_file() and path.stat().st_size == size


def create_partial_file(path: Path, header: bytes, size: int) -> None:
    """Make a file as long as the whole file with its header; keep a file that has this header and length already.

    Args:
        path: the file; its folder is made.
        header: the file's first bytes, up to the values.
        size: the size of the whole file in bytes.

    Raises:
        MachineError: the file cannot be written.
    """
    try:
        if is_partial_file(path, size):
            with path.open("rb") as stream:
                if stream.read(len(header)) == header:
                    return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        ranges_path(path).write_text("", encoding="ascii", newline="\n")
        with atomic_file(path) as stream:
            stream.write(header)
            stream.truncate(size)
    except OSError as error:
        raise write_error(error, path, size) from error


def _read(descriptor: int, piece: Range) -> bytearray:
    data = bytearray(piece[1] - piece[0])
    return data[: read_at(descriptor, memoryview(data), piece[0])]


def _read_record(path: Path) -> list[Range]:
    """Return the ranges in the record of a file whose bytes match their digests.

    A line that an interruption left incomplete does not count.
    """
    lines = ranges_path(path).read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    found = []
    with path.open("rb") as stream:
        for line in lines:
            begin, end, digest = [*line.split(" "), "", ""][:3]
            if not (begin.isdigit() and end.isdigit()):
                break
            stream.seek(int(begin))
            if sha256(stream.read(max(int(end) - int(begin), 0))).hexdigest() == digest:
                found.append((int(begin), int(end)))
    return found
