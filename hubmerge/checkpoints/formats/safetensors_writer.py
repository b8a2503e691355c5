"""Writing safetensors files as a stream: any tensor at any time, from any thread, none kept in memory.

All names, dtypes and shapes are known beforehand, so the header is laid out first and each tensor goes
straight to its place. The file carries a temporary name until it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from hubmerge.checkpoints.checkpoint import byte_view
from hubmerge.checkpoints.tensors import DTYPE_CODES, TensorSpec, describe_shape
from hubmerge.support.files import partial_path, rename_durably, write_error

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True)
class WrittenFile:
    """A file complete on disk; `digests` are the sha256 (hex) of each tensor's values, in the file's order."""

    path: Path
    nbytes: int
    digests: dict[str, str]


class SafetensorsWriter:
    """Write one safetensors file tensor by tensor; nothing appears under `path` before `commit`.

        with SafetensorsWriter(path, specs) as writer:
            writer.write("weight", tensor)
            writer.commit()

    Leaving the block without `commit` removes what was written. Several threads may call `write` and
    `write_raw`. Space for the whole file is reserved at once where the file system can do so: a full disk is
    noticed before any work is done.

    Several processes may write one file: the first one as above; the others, once it has begun, with the same
    `specs` and `joins`. They end with `export_written`, and the first takes over what they give before it commits.

    Raises MachineError if the folder is full or may not be written, ValueError for a name, dtype or shape
    that is not in `specs`.
    """

    def __init__(
        self,
        path: Path,
        specs: Sequence[TensorSpec],
        metadata: Mapping[str, str] | None = None,
        *,
        digests: bool = True,
        attach: bool = False,
    ) -> None:
        self.path = path
        self._joins = attach
        header, self._places = _lay_out(specs, {"format": "pt"} if metadata is None else metadata)
        self.nbytes = len(header) + sum(spec.nbytes for spec in specs)
        self._data_start = len(header)
        self._digests: dict[str, str] | None = {} if digests else None
        self._started: set[str] = set()
        self._finished: set[str] = set()
        self._lock = threading.Lock()
        self._partial = partial_path(path)
        self._descriptor: int | None = None
        try:
            if attach:
                self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._descriptor = os.open(self._partial, flags, 0o666)
            _reserve(self._descriptor, self.nbytes)
            self._put(memoryview(header), 0)
        except OSError as error:
            self.abort()
            raise write_error(error, path, self.nbytes) from error

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor, of exactly the dtype and shape announced; from any device, contiguous or not."""
        spec = self._spec(name)
        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(
                f"{name}: got {tensor.dtype} {describe_shape(tuple(tensor.shape))}, "
                f"announced {spec.dtype} {describe_shape(spec.shape)}"
            )
        self._write(name, [byte_view(tensor)])

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write one tensor from pieces of its values in C order; each is done with before the next is asked for."""
        spec = self._spec(name)

        def views() -> Iterator[memoryview]:
            for piece in pieces:
                if piece.dtype != spec.dtype:
                    raise ValueError(f"{name}: got {piece.dtype}, announced {spec.dtype}")
                yield byte_view(piece)

        self._write(name, views())

    def write_raw(self, name: str, data: Bytes | Iterable[Bytes]) -> None:
        """Write one tensor's values from bytes, or from pieces of them in order."""
        self._spec(name)
        self._write(name, [data] if isinstance(data, (bytes, bytearray, memoryview)) else data)

    def check_complete(self) -> None:
        """Raise ValueError, naming the first tensor, if not all of them have been written."""
        missing = [name for name in self._places if name not in self._finished]
        if missing:
            raise ValueError(f"{self.path.name}: {len(missing)} tensors were not written, the first is {missing[0]!r}")

    def commit(self) -> WrittenFile:
        """Make the file durable and give it its name.

        Raises ValueError naming what has not been written.
        """
        self.check_complete()
        if self._descriptor is None:
            raise ValueError(f"{self.path.name}: already committed or given up")
        try:
            os.fsync(self._descriptor)
            rename_durably(self._partial, self.path)
        except OSError as error:
            self.abort()
            raise write_error(error, self.path, self.nbytes) from error
        os.close(self._descriptor)
        self._descriptor = None
        digests = {} if self._digests is None else {name: self._digests[name] for name in self._places}
        return WrittenFile(self.path, self.nbytes, digests)

    def export_written(self) -> dict[str, str]:
        """Make durable what this process wrote into a file it joined; the tensors' names and digests, if any."""
        if self._descriptor is None:
            raise ValueError(f"{self.path.name}: already committed or given up")
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise write_error(error, self.path, self.nbytes) from error
        os.close(self._descriptor)
        self._descriptor = None
        return {name: "" if self._digests is None else self._digests[name] for name in self._finished}

    def import_written(self, written: Mapping[str, str]) -> None:
        """Count as written what another process handed over."""
        for name, digest in written.items():
            self._spec(name)
            if name in self._started:
                raise ValueError(f"{self.path.name}: {name!r} is written twice")
            self._started.add(name)
            self._finished.add(name)
            if self._digests is not None:
                self._digests[name] = digest

    def abort(self) -> None:
        """Remove what was written; does nothing after `commit`. Who joined a file leaves that to the first."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            if self._joins:
                return
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _spec(self, name: str) -> TensorSpec:
        place = self._places.get(name)
        if place is None:
            raise ValueError(f"{self.path.name}: {name!r} was not announced")
        return place[0]

    def _write(self, name: str, pieces: Iterable[Bytes]) -> None:
        spec, offset = self._places[name]
        with self._lock:
            if name in self._started:
                raise ValueError(f"{self.path.name}: {name!r} is written twice")
            self._started.add(name)
        digest = None if self._digests is None else hashlib.sha256()
        done = 0
        for chunk in pieces:
            piece = memoryview(chunk).cast("B")
            if done + len(piece) > spec.nbytes:
                raise ValueError(f"{name}: more than the announced {spec.nbytes} bytes")
            try:
                self._put(piece, self._data_start + offset + done)
            except OSError as error:
                raise write_error(error, self.path, self.nbytes) from error
            if digest is not None:
                digest.update(piece)
            done += len(piece)
        if done != spec.nbytes:
            raise ValueError(f"{name}: {done} bytes, announced {spec.nbytes}")
        with self._lock:
            if self._digests is not None and digest is not None:
                self._digests[name] = digest.hexdigest()
            self._finished.add(name)

    def _put(self, data: memoryview, offset: int) -> None:
        if self._descriptor is None:
            raise ValueError(f"{self.path.name}: already committed or given up")
        while len(data):
            count = os.pwrite(self._descriptor, data, offset)
            data = data[count:]
            offset += count


def _lay_out(
    specs: Sequence[TensorSpec], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[TensorSpec, int]]]:
    """The file's first bytes, and each tensor's place counted from the end of them.

    Wide dtypes come first, as the safetensors library does it: then every tensor is aligned to its own dtype.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, tuple[TensorSpec, int]] = {}
    offset = 0
    for spec in sorted(specs, key=lambda spec: -spec.dtype.itemsize):
        if spec.name in places or spec.name == "__metadata__":
            raise ValueError(f"{spec.name!r} cannot be written: the name is taken")
        if spec.dtype not in DTYPE_CODES:
            raise ValueError(f"{spec.name}: a safetensors file cannot hold {spec.dtype}")
        places[spec.name] = (spec, offset)
        entries[spec.name] = {
            "dtype": DTYPE_CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, places


def _reserve(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
        except OSError as error:
            # Some file systems cannot reserve; they will tell of a full disk when the bytes arrive.
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}:
                raise
