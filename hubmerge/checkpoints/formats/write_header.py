"""The header of a safetensors file to be written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from hubmerge.checkpoints.formats.header import LENGTH_BYTES
from hubmerge.checkpoints.tensors import DTYPE_CODES, TensorSpec

_ALIGNMENT = 8


def lay_out(
    specs: Sequence[TensorSpec], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, tuple[TensorSpec, int]]]:
    """Place tensors in a file.

    Wide dtypes come first, as in files of the safetensors library: every tensor is then aligned to its own dtype.

    Args:
        specs: all tensors of the file.
        metadata: free text for the header.

    Returns:
        The file's first bytes up to the values, and the places of the values after them.

    Raises:
        ValueError: a name appears twice, or a dtype is not in the format.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, tuple[TensorSpec, int]] = {}
    offset = 0
    for spec in sorted(specs, key=lambda spec: -spec.dtype.itemsize):
        if spec.name in places or spec.name == "__metadata__":
            raise ValueError(f"{spec.name!r} cannot be written: the name is taken")
        if spec.dtype not in DTYPE_CODES:
            raise ValueError(f"{spec.name!r}: safetensors files have no dtype {spec.dtype}")
        places[spec.name] = (spec, offset)
        entries[spec.name] = {
            "dtype": DTYPE_CODES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.nbytes],
        }
        offset += spec.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text, places
