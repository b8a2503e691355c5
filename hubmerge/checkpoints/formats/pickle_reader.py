"""Reader of `.bin` files, which are pickles and could contain code: none is ever run.

torch's restricted unpickler builds tensors and plain containers and refuses everything else. The values stay in the
file, mapped into memory, until a tensor is read.
"""

from __future__ import annotations

import math
import pickle
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import DTYPE_CODES, TensorInfo
from hubmerge.errors import CheckpointError

# Pages of the mapping count as resident once touched; mapping the file anew from time to time bounds their number.
_MAX_TOUCHED_BYTES = 512 << 20
_ZIP_START = b"PK\x03\x04"


class PickleReader:
    """One `.bin` file that `torch.save` wrote from a state dict.

    Several threads may read, and a copy sent to another process maps the file there. Files older than torch 1.6 cannot
    be mapped and are kept in memory whole.

    Attributes:
        path: the file.
        origin: the file's place in messages; its path if left out.
        tensors: the tensors by name.

    Raises:
        CheckpointError: the file cannot be read, or contains anything but named tensors.
    """

    def __init__(self, path: Path, origin: Origin | None = None) -> None:
        self.path = path
        self.origin = Origin.of_file(path) if origin is None else origin
        self._lock = threading.Lock()
        self._values: dict[str, torch.Tensor] | None = None
        self._touched_bytes = 0
        try:
            self._size = path.stat().st_size
            with path.open("rb") as stream:
                self._mapped = stream.read(len(_ZIP_START)) == _ZIP_START
        except OSError as error:
            raise self.origin.unreadable(error) from error
        if self._mapped:
            _check_uncompressed(path, self._size, self.origin)
        file = self.origin.file or path.name
        self.tensors = {
            name: TensorInfo(name, tuple(tensor.shape), tensor.dtype, file, 0, tensor.nbytes)
            for name, tensor in self._load().items()
        }

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return the tensor in its stored dtype, contiguous, in memory of its own.

        Raises:
            CheckpointError: the file was changed after it was opened.
        """
        with self._lock:
            return self._tensor(info, info.nbytes).clone(memory_format=torch.contiguous_format)

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Yield the tensor's values as flat tensors of `elements` values, the last one shorter.

        Only a piece is copied at a time. A tensor that is not contiguous in the file is copied whole.

        Raises:
            CheckpointError: as `read` does.
        """
        count, size = math.prod(info.shape), info.dtype.itemsize
        for begin in range(0, max(count, 1), elements):
            with self._lock:
                tensor = self._tensor(info, min(elements, count - begin) * size)
                contiguous = tensor.is_contiguous()
                piece = tensor.view(-1)[begin : begin + elements].clone() if contiguous else tensor
            if not contiguous:
                yield from piece.reshape(-1).split(elements)
                return
            yield piece

    def _tensor(self, info: TensorInfo, touched: int) -> torch.Tensor:
        """Return the tensor in the mapping, which is made anew when too many of its bytes were touched.

        Raises:
            CheckpointError: the file was changed after it was opened.
        """
        if self._mapped and self._touched_bytes + touched > _MAX_TOUCHED_BYTES:
            self._values, self._touched_bytes = None, 0
        self._touched_bytes += touched
        tensor = self._load().get(info.name)
        if tensor is None or tensor.dtype != info.dtype or tuple(tensor.shape) != info.shape:
            raise self.origin.error(
                f"tensor {info.name!r} changed after the file was opened",
                hint="the file was changed while it was being read: fetch it again",
                tensor=info.name,
            )
        return tensor

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
            self._values = _checked_state_dict(self._unpickle(), self._size, self.origin)
        return self._values

    def _unpickle(self) -> object:
        try:
            with warnings.catch_warnings():
                # torch warns about pickles it did not write; those that it cannot read are refused below.
                warnings.simplefilter("ignore")
                return torch.load(self.path, map_location="cpu", weights_only=True, mmap=self._mapped)
        except pickle.UnpicklingError as error:
            raise self.origin.error(
                f"refused, the pickle contains more than tensors: {_first_sentence(error)}",
                hint="a pickle can run code: convert it to safetensors on a machine where you trust it, and merge that",
            ) from error
        except Exception as error:
            # A damaged or hostile file makes the unpickler raise errors of any type.
            raise _not_a_torch_file(error, self.origin) from error


def _checked_state_dict(found: object, size: int, origin: Origin) -> dict[str, torch.Tensor]:
    if not isinstance(found, Mapping):
        raise origin.error(
            f"contains a {type(found).__name__}, expected named tensors", hint="save model.state_dict() instead"
        )
    return {name: _checked_tensor(name, tensor, size, origin) for name, tensor in found.items()}


def _checked_tensor(name: object, tensor: object, size: int, origin: Origin) -> torch.Tensor:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise origin.error(
            f"entry {name!r} is of type {type(tensor).__name__}, expected a tensor",
            hint="save model.state_dict() alone, without optimizer states or a wrapping dict",
        )
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in DTYPE_CODES:
        raise origin.error(
            f"tensor {name!r} is {tensor.layout}, {tensor.dtype} on {tensor.device}, expected a dense tensor of a "
            "plain dtype",
            hint="merge an unquantized, dense version of this checkpoint",
            tensor=name,
        )
    # A tiny file can describe an enormous tensor by a stride of 0.
    if tensor.nbytes > size:
        raise origin.error(
            f"tensor {name!r} has {tensor.nbytes} bytes, but the whole file has {size}",
            hint="save the tensor with .contiguous()",
            tensor=name,
        )
    return tensor.detach()


def _check_uncompressed(path: Path, size: int, origin: Origin) -> None:
    """Check that no entry of the archive is compressed: torch.save compresses nothing.

    Raises:
        CheckpointError: an entry is compressed, or expands to more bytes than the file has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # damaged archives make zipfile raise more than BadZipFile
        raise _not_a_torch_file(error, origin) from error
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
            raise origin.error(
                f"entry {entry.filename!r} is compressed: {entry.compress_size} bytes expand to {entry.file_size}",
                hint="torch.save compresses nothing: do not use this checkpoint unless you know who wrote it",
            )


def _not_a_torch_file(error: Exception, origin: Origin) -> CheckpointError:
    return origin.error(
        f"not a readable torch file: {_first_sentence(error)}",
        hint="the file is damaged or incomplete: fetch it again, or convert it to safetensors",
    )


def _first_sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # torch's message starts with advice to disable the very check that refused the file.
    causes = [line for line in lines if "Unsupported" in line or "GLOBAL" in line]
    return (causes or lines or [type(error).__name__])[0].split(". ")[0].strip()[:200]
