"""Reading tensors out of a `.bin` file, which is a pickle and could hold code: none is ever run.

torch's restricted unpickler builds tensors and plain containers and refuses everything else. The values stay in
the file, mapped into memory, until a tensor is asked for.
"""

from __future__ import annotations

import pickle
import threading
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.tensors import DTYPE_CODES, TensorInfo
from hubmerge.errors import CheckpointError

# Pages of the mapping count as resident once touched; dropping the mapping now and then bounds them.
_MAX_TOUCHED_BYTES = 512 << 20
_ZIP_START = b"PK\x03\x04"


class PickleReader:
    """One `.bin` file written by `torch.save` of a state dict. Several threads may read, and a copy sent to another
    process maps the file there.

    Files older than torch 1.6 cannot be mapped and are held in memory whole.

    Raises CheckpointError if the file holds anything but named tensors.
    """

    def __init__(self, path: Path, label: str | None = None, *, file: str | None = None) -> None:
        self.path = path
        self.label = str(path) if label is None else label
        self._lock = threading.Lock()
        self._values: dict[str, torch.Tensor] | None = None
        self._touched_bytes = 0
        try:
            self._size = path.stat().st_size
            with path.open("rb") as stream:
                self._mapped = stream.read(len(_ZIP_START)) == _ZIP_START
        except OSError as error:
            raise CheckpointError(
                f"{self.label}: cannot be read: {error.strerror or error}",
                hint="check that the file exists and that you may read it",
            ) from error
        if self._mapped:
            _refuse_packed(path, self.label, self._size)
        file = path.name if file is None else file
        self.tensors = {
            name: TensorInfo(name, tuple(tensor.shape), tensor.dtype, file, 0, tensor.nbytes)
            for name, tensor in self._load().items()
        }

    def read(self, info: TensorInfo) -> torch.Tensor:
        """The tensor in its stored dtype, contiguous, in memory of its own."""
        with self._lock:
            if self._mapped and self._touched_bytes + info.nbytes > _MAX_TOUCHED_BYTES:
                self._values, self._touched_bytes = None, 0
            self._touched_bytes += info.nbytes
            values = self._load()
            tensor = values.get(info.name)
            if tensor is None or tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
                raise CheckpointError(
                    f"{self.label}: tensor {info.name!r} is no longer what it was when the file was opened",
                    hint="the file was changed while it was being read: fetch it again",
                )
            return tensor.clone(memory_format=torch.contiguous_format)

    def close(self) -> None:
        """Unmap the file; a later `read` maps it again."""
        with self._lock:
            self._values, self._touched_bytes = None, 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in {"_lock", "_values"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _values=None, _touched_bytes=0)

    def _load(self) -> dict[str, torch.Tensor]:
        if self._values is None:
            self._values = self._checked(self._unpickle())
        return self._values

    def _unpickle(self) -> object:
        try:
            with warnings.catch_warnings():
                # torch warns of pickles it did not write; what it then cannot read is told below.
                warnings.simplefilter("ignore")
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=self._mapped)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"{self.label}: refused, the pickle holds more than tensors: {_first_sentence(error)}",
                hint="a pickle can run code: convert it to safetensors where you trust it, and merge that",
            ) from error
        except Exception as error:
            # What a damaged or hostile file makes the unpickler raise is not bounded by any one type.
            raise CheckpointError(
                f"{self.label}: not a readable torch file: {_first_sentence(error)}",
                hint="the file is damaged or incomplete: fetch it again, or convert it to safetensors",
            ) from error

    def _checked(self, found: object) -> dict[str, torch.Tensor]:
        if not isinstance(found, Mapping):
            raise CheckpointError(
                f"{self.label}: holds a {type(found).__name__}, expected named tensors",
                hint="save model.state_dict() instead",
            )
        values: dict[str, torch.Tensor] = {}
        for name, tensor in found.items():
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise CheckpointError(
                    f"{self.label}: entry {name!r} is of type {type(tensor).__name__}, expected a tensor",
                    hint="save model.state_dict() alone, without optimizer states or a wrapping dict",
                )
            if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPE_CODES:
                raise CheckpointError(
                    f"{self.label}: tensor {name!r} is {tensor.layout}, {tensor.dtype} on {tensor.device}, "
                    "expected a dense one of a plain dtype",
                    hint="merge an unquantised, dense version of this checkpoint",
                )
            # A tiny file can describe an enormous tensor by a stride of 0.
            if tensor.nbytes > self._size:
                raise CheckpointError(
                    f"{self.label}: tensor {name!r} claims {tensor.nbytes} bytes, the file has {self._size}",
                    hint="save the tensor with .contiguous()",
                )
            values[name] = tensor.detach()
        return values


def _refuse_packed(path: Path, label: str, size: int) -> None:
    """Refuse an archive whose entries unpack to more than the file holds: torch.save packs nothing.

    Raises CheckpointError naming the entry.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # damaged archives make zipfile raise more than BadZipFile
        raise CheckpointError(
            f"{label}: not a readable torch file: {_first_sentence(error)}",
            hint="the file is damaged or incomplete: fetch it again, or convert it to safetensors",
        ) from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise CheckpointError(
                f"{label}: entry {entry.filename!r} is packed: {entry.compress_size} bytes stand for {entry.file_size}",
                hint="torch.save packs nothing: do not use this checkpoint unless you know who wrote it",
            )


def _first_sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # torch's message starts with advice to disable the very check that refused the file.
    telling = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (telling or lines or [type(error).__name__])[0].split(". ")[0].strip()[:200]
