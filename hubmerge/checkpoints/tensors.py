"""Tensors by name, dtype and shape, without their values, and the dtypes that safetensors files and torch share."""

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
"""The dtype codes of the safetensors format that can be read, with their torch dtypes."""

DTYPE_CODES: dict[torch.dtype, str] = {dtype: code for code, dtype in TORCH_DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: name, dtype and shape."""

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

    Attributes:
        name: the tensor's name in the file.
        shape: the shape of its values.
        dtype: the stored dtype.
        file: the file's name, from the checkpoint's folder on.
        offset: the first byte of the values in the file; 0 in a pickle, whose header has no offsets.
        nbytes: the size of the values in bytes.
        saved_in_adapter: True for a tensor that an adapter has whole, not as a change of the model's tensor.
        model_dtype: the dtype in the model's file of a tensor that an adapter changes, whose `dtype` is float64.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    file: str
    offset: int
    nbytes: int
    saved_in_adapter: bool = False
    model_dtype: torch.dtype | None = None

    @property
    def spec(self) -> TensorSpec:
        """Name, dtype and shape, for writing the tensor elsewhere."""
        return TensorSpec(self.name, self.dtype, self.shape)


def describe_shape(shape: tuple[int, ...]) -> str:
    """Return a shape for messages.

    >>> describe_shape((768, 3072)), describe_shape(())
    ('768 x 3072', 'a single number')
    """
    return " x ".join(map(str, shape)) if shape else "a single number"
