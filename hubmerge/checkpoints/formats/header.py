"""The header of a safetensors file, parsed and checked from bytes, wherever the bytes come from.

A file is 8 bytes (the header's length, little-endian), a JSON object, then the values. The object maps each
tensor's name to its dtype, shape and place. Every byte after the header belongs to exactly one tensor: a hole
could hide anything, and an overlap means that two tensors are one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from hubmerge.checkpoints.tensors import TORCH_DTYPES, TensorInfo, describe_shape
from hubmerge.errors import CheckpointError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
_DAMAGED = "the file is damaged or incomplete: delete it and fetch it again"
_MALFORMED = "the file was not written by the safetensors library: save it again with save_pretrained()"


@dataclass(frozen=True)
class Header:
    """A checked header: the tensors in the order of their bytes, free text, and where the values lie."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    data_end: int


def header_length(prefix: bytes, label: str, *, size: int | None = None) -> int:
    """Length of the JSON header in bytes, from the first 8 bytes of a file of `size` bytes.

    Raises CheckpointError if it cannot be the start of a safetensors file.
    """
    if prefix.startswith(b"version "):
        raise CheckpointError(
            f"{label}: a Git LFS pointer stands where the weights should be",
            hint="run `git lfs pull` in the folder, or fetch the repo with huggingface_hub",
        )
    if len(prefix) < LENGTH_BYTES:
        raise CheckpointError(
            f"{label}: the file has {len(prefix)} bytes, expected at least {LENGTH_BYTES}", hint=_DAMAGED
        )
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{label}: the header claims {length} bytes, expected at most {MAX_HEADER_BYTES}",
            hint="this is not a safetensors file, or its first bytes are damaged",
        )
    if size is not None and LENGTH_BYTES + length > size:
        raise CheckpointError(
            f"{label}: the header claims {length} bytes, but the whole file has {size}", hint=_DAMAGED
        )
    return length


def parse_header(
    read: Callable[[int, int], bytes], size: int | None, label: str, *, file: str = "model.safetensors"
) -> Header:
    """Read and check a header through `read(offset, length)`: a file, or a remote one by byte ranges.

    `size` is the length of the whole file in bytes; None if unknown, which leaves its end unchecked. `label`
    names the file in messages, `file` is what the tensors' `file` will say.

    Raises CheckpointError naming the file, the tensor, and what was expected.
    """
    length = header_length(read(0, LENGTH_BYTES), label, size=size)
    text = read(LENGTH_BYTES, length)
    if len(text) != length:
        raise CheckpointError(f"{label}: only {len(text)} of the header's {length} bytes are there", hint=_DAMAGED)
    return check_header(_decode(text, label), LENGTH_BYTES + length, size, label, file=file)


def check_header(
    entries: Mapping[str, Any],
    data_start: int,
    size: int | None,
    label: str,
    *,
    file: str = "model.safetensors",
) -> Header:
    """Check an already decoded header object; offsets inside it count from `data_start`.

    Raises CheckpointError naming the file, the tensor, and what was expected.
    """
    metadata = _metadata(entries.get("__metadata__"), label)
    tensors = [
        _tensor(name, entry, data_start, label, file) for name, entry in entries.items() if name != "__metadata__"
    ]
    # Empty tensors share their offset with a neighbour and must come before it.
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    end = data_start
    previous = "the header"
    for tensor in tensors:
        if tensor.offset != end:
            wrong = "overlaps" if tensor.offset < end else "leaves a hole after"
            raise CheckpointError(
                f"{label}: tensor {tensor.name!r} {wrong} {previous}: it begins at byte "
                f"{tensor.offset - data_start} of the values, expected {end - data_start}",
                hint=_MALFORMED,
            )
        end += tensor.nbytes
        previous = f"tensor {tensor.name!r}"
    if size is not None and end != size:
        cut = "is cut short" if end > size else "has bytes that belong to no tensor"
        at_end = f", the last one being {tensors[-1].name!r}" if tensors else ""
        raise CheckpointError(
            f"{label}: the file {cut}: the header accounts for {end} bytes{at_end}, the file has {size}",
            hint=_DAMAGED,
        )
    return Header({tensor.name: tensor for tensor in tensors}, metadata, data_start, end)


def _decode(text: bytes, label: str) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise CheckpointError(f"{label}: the name {key!r} stands twice in the header", hint=_MALFORMED)
            found[key] = value
        return found

    def no_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: the header is not valid JSON: {error}", hint=_DAMAGED) from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{label}: the header is a {type(entries).__name__}, expected an object", hint=_MALFORMED)
    return entries


def _metadata(found: Any, label: str) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(
            f"{label}: `__metadata__` must map names to text, found {type(found).__name__}", hint=_MALFORMED
        )
    return dict(found)


def _tensor(name: str, entry: Any, data_start: int, label: str, file: str) -> TensorInfo:
    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{label}: tensor {name!r}: {what}", hint=_MALFORMED)

    if not name or not name.isprintable():
        raise refuse("expected a name of printable characters")
    if not isinstance(entry, Mapping):
        raise refuse(f"expected an object with dtype, shape and data_offsets, found {type(entry).__name__}")
    lacking = [key for key in ("dtype", "shape", "data_offsets") if key not in entry]
    if lacking:
        raise refuse(f"{' and '.join(lacking)} missing in the header")
    code = entry["dtype"]
    if not isinstance(code, str) or code not in TORCH_DTYPES:
        raise CheckpointError(
            f"{label}: tensor {name!r}: dtype {_short(code)} is not known, expected one of {', '.join(TORCH_DTYPES)}",
            hint="merge an unquantised version of this checkpoint",
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _natural_numbers(shape):
        raise refuse(f"the shape must be a list of whole numbers >= 0, found {_short(shape)}")
    if not _natural_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"data_offsets must be a begin and an end with begin <= end, found {_short(offsets)}")
    dtype = TORCH_DTYPES[code]
    expected = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != expected:
        raise refuse(
            f"{offsets[1] - offsets[0]} bytes, expected {expected} for shape {describe_shape(tuple(shape))} in {code}"
        )
    return TensorInfo(name, tuple(shape), dtype, file, data_start + offsets[0], expected)


def _natural_numbers(values: Any) -> bool:
    # Numbers beyond 2**63 are no sizes; and a huge one would make the arithmetic itself an attack.
    return isinstance(values, (list, tuple)) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
