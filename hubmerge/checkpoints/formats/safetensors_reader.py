"""Reading tensors out of a local safetensors file, each by one positioned read of exactly its bytes.

The file is not mapped into memory: mapped pages count as resident, so that a merge which touches every tensor
once would seem to need (and, under a memory limit, would need) memory for the whole file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.formats.header import Header, parse_header
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

_MAX_READ_BYTES = 1 << 30


class SafetensorsReader:
    """One safetensors file on disk; its header is checked at once, its values are read on request.

    Reading is safe from several threads, and a copy sent to another process opens the file there. `label` names the
    file in messages.
    """

    def __init__(self, path: Path, label: str | None = None, *, file: str | None = None) -> None:
        self.path = path
        self.label = str(path) if label is None else label
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        try:
            size = path.stat().st_size
            with path.open("rb") as stream:

                def read(offset: int, length: int) -> bytes:
                    stream.seek(offset)
                    return stream.read(length)

                self.header: Header = parse_header(read, size, self.label, file=path.name if file is None else file)
        except OSError as error:
            raise _unreadable(self.label, error) from error

    def read(self, info: TensorInfo) -> torch.Tensor:
        """The tensor in its stored dtype, in memory of its own.

        Raises CheckpointError if the file changed or went away since its header was read.
        """
        values = torch.empty(info.nbytes, dtype=torch.uint8)
        self._fill(values, info, 0)
        return values.view(info.dtype).reshape(info.shape)

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Its values, flat, in pieces of `elements` and a shorter one, each in the memory of the one before.

        A tensor without values is one such piece, as `torch.split` has it. Raises CheckpointError as `read` does.
        """
        size = elements * info.dtype.itemsize
        piece = torch.empty(min(size, info.nbytes), dtype=torch.uint8)
        for begin in range(0, max(info.nbytes, 1), size):
            values = piece[: info.nbytes - begin]
            self._fill(values, info, begin)
            yield values.view(info.dtype)

    def _fill(self, values: torch.Tensor, info: TensorInfo, begin: int) -> None:
        """Read the tensor's bytes from `begin` on, as many as `values` has."""
        target = values.numpy().data
        done = 0
        try:
            while done < len(target):
                count = os.preadv(self._open(), [target[done : done + _MAX_READ_BYTES]], info.offset + begin + done)
                if count == 0:
                    raise CheckpointError(
                        f"{self.label}: tensor {info.name!r}: the file ends "
                        f"{info.nbytes - begin - done} bytes too early",
                        hint="the file was changed while it was being read: fetch it again",
                    )
                done += count
        except OSError as error:
            raise _unreadable(self.label, error) from error

    def close(self) -> None:
        """Close the file; a later `read` opens it again. Not to be called while another thread reads."""
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
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return self._descriptor

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()


def _unreadable(label: str, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{label}: cannot be read: {error.strerror or error}",
        hint="check that the file exists and that you may read it",
    )
