"""A safetensors file that lies elsewhere and of which only what is read is brought here.

    model.safetensors          as long as the whole file: its header, the values that were fetched, holes elsewhere
    model.safetensors.ranges   where the fetched values are: a line `begin end` for each piece, added when it is durable

Interrupted at any time, the two files are good: what was fetched is not fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError
from hubmerge.support.files import atomic_file, write_error

FetchBytes = Callable[[str, int, int], bytes]
"""`fetch(file, offset, length)`: so many bytes of a file of the checkpoint, from an offset on."""

PIECE_BYTES = 16 << 20
"""So much is asked for at one time: what a fault can cost, and what one connection holds in memory."""

GAP_BYTES = 64 << 10
"""Between two tensors: less than this is fetched along, as a request of its own would take longer."""

CONNECTIONS = 4

Range = tuple[int, int]


class PartialFile(SafetensorsReader):
    """One such file, begun with `create_partial_file`. Several threads may read.

    What is asked for in one call of `prepare` is fetched in few, large requests, and `read` then finds it here; a
    tensor that was not prepared is fetched when it is read. Without `fetch`, as in another process, only what is here
    can be read.
    """

    def __init__(self, path: Path, label: str, *, file: str, fetch: FetchBytes | None) -> None:
        super().__init__(path, label, file=file)
        self._file = file
        self._fetch = fetch
        self._fetching = threading.Lock()
        self._here = merge_ranges(_recorded(ranges_path(path)))

    def read(self, info: TensorInfo) -> torch.Tensor:
        """The tensor in its stored dtype, in memory of its own; fetched first if it is not here.

        Raises CheckpointError if it is not here and cannot be fetched.
        """
        self.prepare([info])
        return super().read(info)

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Its values, flat, in pieces; all of them fetched first if they are not here. Raises as `read` does."""
        self.prepare([info])
        return super().read_pieces(info, elements)

    def prepare(self, infos: Iterable[TensorInfo]) -> None:
        """Fetch the values of these tensors, as far as they are not here."""
        wanted = [(info.offset, info.offset + info.nbytes) for info in infos if info.nbytes]
        if not missing_ranges(wanted, self._here):
            return
        with self._fetching:
            missing = missing_ranges(wanted, self._here)
            if missing and self._fetch is None:
                raise CheckpointError(
                    f"{self.label}: bytes {missing[0][0]} to {missing[0][1]} were not fetched",
                    hint="run again with `fetch: cache` in the recipe, and please report this",
                )
            if missing and self._fetch is not None:
                self._bring(split_ranges(missing), self._fetch)

    def _bring(self, wanted: Sequence[Range], fetch: FetchBytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)

        failed = threading.Event()

        def bring_one(piece: Range) -> bool:
            if failed.is_set():
                return False
            begin, end = piece
            try:
                data = memoryview(fetch(self._file, begin, end - begin))
                while len(data):
                    data = data[os.pwrite(descriptor, data, end - len(data)) :]
            except BaseException:
                failed.set()
                raise
            return True

        try:
            with ThreadPoolExecutor(CONNECTIONS, "ranges") as pool:
                tasks = {pool.submit(bring_one, piece): piece for piece in wanted}
                for task in as_completed(tasks):
                    # After a failure, what was under way comes to its end and counts.
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
            whole = stream.read().rfind(b"\n") + 1
            stream.seek(whole)
            stream.truncate()
            stream.write(f"{piece[0]} {piece[1]}\n".encode())
            stream.flush()
            os.fsync(stream.fileno())
        self._here = merge_ranges([*self._here, piece])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_fetch": None, "_fetching": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({**state, "_fetching": threading.Lock()})


def ranges_path(path: Path) -> Path:
    """The file that says what of `path` is here; where there is none, `path` is whole."""
    return path.with_name(f"{path.name}.ranges")


def is_partial_file(path: Path, size: int) -> bool:
    """Whether `create_partial_file` was called for a file of this length, and nobody changed that since."""
    return ranges_path(path).is_file() and path.is_file() and path.stat().st_size == size


def create_partial_file(path: Path, header: bytes, size: int) -> None:
    """Make `path` as long as the whole file and write its header; leave it as it is if that was done before.

    `header` are the file's first bytes, up to the values. Raises MachineError if the folder cannot be written.
    """
    try:
        if is_partial_file(path, size):
            with path.open("rb") as stream:
                if stream.read(len(header)) == header:
                    return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        ranges_path(path).write_text("", encoding="ascii")
        with atomic_file(path) as stream:
            stream.write(header)
            stream.truncate(size)
    except OSError as error:
        raise write_error(error, path, size) from error


def merge_ranges(ranges: Iterable[Range], gap: int = 0) -> tuple[Range, ...]:
    """The ranges in ascending order, those that touch or are at most `gap` apart made one.

    >>> merge_ranges([(8, 9), (0, 3), (3, 5)])
    ((0, 5), (8, 9))
    """
    found: list[Range] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return tuple(found)


def missing_ranges(wanted: Iterable[Range], here: Sequence[Range]) -> tuple[Range, ...]:
    """What of `wanted` is not in `here`, which is as `merge_ranges` gives it.

    >>> missing_ranges([(0, 10)], [(2, 3), (5, 6)])
    ((0, 2), (3, 5), (6, 10))
    """
    found: list[Range] = []
    for wanted_begin, end in merge_ranges(wanted):
        begin = wanted_begin
        for here_begin, here_end in here:
            if here_end <= begin or here_begin >= end:
                continue
            if here_begin > begin:
                found.append((begin, here_begin))
            begin = here_end
        if begin < end:
            found.append((begin, end))
    return tuple(found)


def split_ranges(ranges: Iterable[Range]) -> list[Range]:
    """What to ask for: neighbours together, and nothing larger than PIECE_BYTES."""
    return [
        (place, min(place + PIECE_BYTES, end))
        for begin, end in merge_ranges(ranges, GAP_BYTES)
        for place in range(begin, end, PIECE_BYTES)
    ]


def _recorded(path: Path) -> list[Range]:
    """The ranges in a record; what stands after the last whole line was being written when the machine stopped."""
    lines = path.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
    found = []
    for line in lines:
        begin, _, end = line.partition(" ")
        if not (begin.isdigit() and end.isdigit()):
            break
        found.append((int(begin), int(end)))
    return found
