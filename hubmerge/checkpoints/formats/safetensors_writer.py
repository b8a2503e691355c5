"""Writer of safetensors files as a stream: any tensor at any time, from any thread, none kept in memory.

All names, dtypes and shapes are known beforehand, so the header is laid out first and each tensor is written at its
final offset. The file has a temporary name until it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from hubmerge.checkpoints.checkpoint import byte_view
from hubmerge.checkpoints.formats.write_header import lay_out
from hubmerge.checkpoints.tensors import TensorSpec, describe_shape
from hubmerge.support.files import partial_path, rename_durably, start_flush, write_error
from hubmerge.support.positions import OPEN_FLAGS, write_at

Bytes = bytes | bytearray | memoryview

# Errors of file systems that cannot reserve space; they report a full disk when the bytes are written.
_CANNOT_RESERVE = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})

_FLUSHED_BYTES = 1 << 20
"""Size from which a tensor goes to the disk while the next ones are computed, so that `commit` hardly waits."""


@dataclass(frozen=True)
class WrittenFile:
    """A file complete on disk.

    Attributes:
        path: the file.
        nbytes: its size in bytes.
        digests: the sha256 (hex) of each tensor's values, in the file's order; empty if none were asked for.
    """

    path: Path
    nbytes: int
    digests: dict[str, str]


class SafetensorsWriter:
    """Writer of one safetensors file; nothing appears under `path` before `commit`.

        with SafetensorsWriter(path, specs) as writer:
            writer.write("weight", tensor)
            writer.commit()

    Leaving the block without `commit` removes what was written. Several threads may write. Space for the whole file is
    reserved at once where the file system can do so, so that a full disk is noticed before any work is done.

    Several processes may write one file: the first one as above; the others, once the file exists, with the same
    `specs` and `attach`. They end with `export_written`, and the first passes the results to `import_written` before it
    commits.

    Args:
        path: the file; its folder is made.
        specs: all tensors of the file.
        metadata: free text for the header; `{"format": "pt"}` if left out.
        digests: compute the sha256 of each tensor's values.
        attach: write into a file that another process has begun.

    Raises:
        MachineError: the disk is full or the folder may not be written.
        ValueError: a name, dtype or shape is not in `specs`.
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
        self._attached = attach
        header, self._places = lay_out(specs, {"format": "pt"} if metadata is None else metadata)
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
                self._descriptor = os.open(self._partial, os.O_RDWR | OPEN_FLAGS)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | OPEN_FLAGS
            self._descriptor = os.open(self._partial, flags, 0o666)
            _reserve(self._descriptor, self.nbytes)
            self._put(memoryview(header), 0)
        except OSError as error:
            self.abort()
            raise write_error(error, path, self.nbytes) from error

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor, of exactly the dtype and shape in `specs`; from any device, contiguous or not."""
        spec = self._spec(name)
        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(
                f"{name}: got {tensor.dtype} {describe_shape(tuple(tensor.shape))}, "
                f"expected {spec.dtype} {describe_shape(spec.shape)}"
            )
        self._write(name, [byte_view(tensor)])

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write one tensor from pieces of its values in C order; a piece may reuse the memory of the one before it."""
        spec = self._spec(name)

        def views() -> Iterator[memoryview]:
            for piece in pieces:
                if piece.dtype != spec.dtype:
                    raise ValueError(f"{name}: got {piece.dtype}, expected {spec.dtype}")
                yield byte_view(piece)

        self._write(name, views())

    def write_raw(self, name: str, data: Bytes | Iterable[Bytes]) -> None:
        """Write one tensor's values from bytes, or from pieces of them in order."""
        self._spec(name)
        self._write(name, [data] if isinstance(data, (bytes, bytearray, memoryview)) else data)

    def check_complete(self) -> None:
        """Raise ValueError with the name of a tensor that has not been written, if there is one."""
        missing = [name for name in self._places if name not in self._finished]
        if missing:
            raise ValueError(f"{self.path.name}: {len(missing)} tensors were not written, the first is {missing[0]!r}")

    def commit(self) -> WrittenFile:
        """Flush the file to the disk and rename it to its final name.

        Raises:
            ValueError: a tensor has not been written.
            MachineError: the file cannot be flushed or renamed.
        """
        self.check_complete()
        try:
            os.fsync(self._open_descriptor())
            self._close()  # Windows renames no open file
            rename_durably(self._partial, self.path)
        except OSError as error:
            self._remove_partial()
            raise write_error(error, self.path, self.nbytes) from error
        digests = {} if self._digests is None else {name: self._digests[name] for name in self._places}
        return WrittenFile(self.path, self.nbytes, digests)

    def export_written(self) -> dict[str, str]:
        """Flush what this process wrote into a file of another process.

        Returns:
            The names of the tensors written here, with the digests of their values; without `digests`, empty texts.
        """
        try:
            os.fsync(self._open_descriptor())
        except OSError as error:
            raise write_error(error, self.path, self.nbytes) from error
        self._close()
        return {name: "" if self._digests is None else self._digests[name] for name in self._finished}

    def import_written(self, written: Mapping[str, str]) -> None:
        """Count as written the tensors that another process returned from `export_written`."""
        for name, digest in written.items():
            self._spec(name)
            if name in self._started:
                raise ValueError(f"{self.path.name}: {name!r} is written twice")
            self._started.add(name)
            self._finished.add(name)
            if self._digests is not None:
                self._digests[name] = digest

    def abort(self) -> None:
        """Remove what was written; do nothing after `commit`, and in processes that attached to the file."""
        if self._descriptor is not None:
            self._remove_partial()

    def __enter__(self) -> SafetensorsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _remove_partial(self) -> None:
        self._close()
        if not self._attached:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)

    def _spec(self, name: str) -> TensorSpec:
        place = self._places.get(name)
        if place is None:
            raise ValueError(f"{self.path.name}: {name!r} is not one of its tensors")
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
                raise ValueError(f"{name}: got more than the expected {spec.nbytes} bytes")
            try:
                self._put(piece, self._data_start + offset + done)
            except OSError as error:
                raise write_error(error, self.path, self.nbytes) from error
            if digest is not None:
                digest.update(piece)
            done += len(piece)
        if done != spec.nbytes:
            raise ValueError(f"{name}: got {done} bytes, expected {spec.nbytes}")
        if done >= _FLUSHED_BYTES:
            start_flush(self._open_descriptor(), self._data_start + offset, done)
        with self._lock:
            if self._digests is not None and digest is not None:
                self._digests[name] = digest.hexdigest()
            self._finished.add(name)

    def _put(self, data: memoryview, offset: int) -> None:
        write_at(self._open_descriptor(), data, offset)

    def _open_descriptor(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"{self.path.name}: already committed or aborted")
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _reserve(descriptor: int, nbytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise
