"""Reader of local safetensors files: each tensor by one positioned read of exactly its bytes.

The file is not mapped into memory: mapped pages count as resident, so that a merge which touches every tensor once
would appear to need memory for the whole file, and under a memory limit would need it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.formats.header import Header, parse_header
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.support.positions import OPEN_FLAGS, read_at


class SafetensorsReader:
    """One safetensors file on disk; its header is checked at once, its values are read on request.

    Several threads may read, and a copy sent to another process opens the file there.

    Attributes:
        path: the file.
        origin: the file's place in messages; its path if left out.
        header: the checked header.

    Raises:
        CheckpointError: the file cannot be read, or its header is not valid.
    """

    def __init__(self, path: Path, origin: Origin | None = None) -> None:
        self.path = path
        self.origin = Origin.of_file(path) if origin is None else origin
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:

                def read(offset: int, length: int) -> bytes:
                    stream.seek(offset)
                    return stream.read(length)

                self.header: Header = parse_header(read, size, self.origin)
        except OSError as error:
            raise self.origin.unreadable(error) from error

    @property
    def whole_file(self) -> Path | None:
        """The file, whose bytes are all here."""
        return self.path

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return the tensor in its stored dtype, in memory of its own.

        Raises:
            CheckpointError: the file was changed or removed after its header was read.
        """
        values = torch.empty(info.nbytes, dtype=torch.uint8)
        self._fill(values, info, 0)
        return values.view(info.dtype).reshape(info.shape)

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Yield the tensor's values as flat tensors of `elements` values, the last one shorter.

        Each piece has the memory of the piece before it. A tensor without values is one piece without values, as in
        `torch.split`.

        Raises:
            CheckpointError: as `read` does.
        """
        size = elements * info.dtype.itemsize
        piece = torch.empty(min(size, info.nbytes), dtype=torch.uint8)
        for begin in range(0, max(info.nbytes, 1), size):
            values = piece[: info.nbytes - begin]
            self._fill(values, info, begin)
            yield values.view(info.dtype)

    def _fill(self, values: torch.Tensor, info: TensorInfo, begin: int) -> None:
        """Read the tensor's bytes from `begin` on until `values` is full."""
        target = values.numpy().data
        try:
            done = read_at(self._open(), target, info.offset + begin)
        except OSError as error:
            raise self.origin.unreadable(error) from error
        if done < len(target):
            raise self.origin.error(
                f"tensor {info.name!r}: the file ends {info.nbytes - begin - done} bytes too early",
                hint="the file was changed while it was being read: fetch it again",
                tensor=info.name,
            )

    def close(self) -> None:
        """Close the file; a later `read` opens it again. Must not be called while another thread reads."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_lock", "_descriptor"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _descriptor=None)

    def _open(self) -> int:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | OPEN_FLAGS)
            return self._descriptor

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()
