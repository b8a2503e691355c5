"""What is known of a tensor without reading it, and the dtypes that safetensors files and torch share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TORCH_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""The codes of the safetensors format that can be read, and what each is in torch."""

DTYPE_CODES: dict[torch.dtype, str] = {dtype: code for code, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: its name, dtype and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class TensorInfo:
    """A tensor in a file, known from the file's header alone.

    `file` is the name inside the checkpoint's folder, `offset` the place of the first byte counted from the
    start of that file (0 in a pickle, where places are not known), `nbytes` the size of the values. `saved_in_adapter`
    tells that an adapter holds the tensor itself, not a change of its model's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: str
    offset: int
    nbytes: int
    saved_in_adapter: bool = False

    @property
    def spec(self) -> TensorSpec:
        """Name, dtype and shape, for writing the tensor elsewhere."""
        return TensorSpec(self.name, self.dtype, self.shape)


def describe_shape(shape: tuple[int, ...]) -> str:
    """A shape as people write it: `(768, 3072)` -> "768 x 3072", `()` -> "a single number"."""
    return " x ".join(map(str, shape)) if shape else "a single number"
