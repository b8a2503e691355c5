"""The header of a safetensors file, parsed and checked from bytes on disk or from the network.

A file is 8 bytes (the header's length, little-endian), a JSON object, then the values. The object maps each
tensor's name to its dtype, shape and offsets. Every byte after the header belongs to exactly one tensor: a hole
could hide anything, and an overlap would make two tensors share their values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TORCH_DTYPES, TensorInfo, describe_shape
from hubmerge.errors import CheckpointError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
_KEYS = ("dtype", "shape", "data_offsets")
_DAMAGED = "the file is damaged or incomplete: delete it and fetch it again"
_MALFORMED = "the file was not written by the safetensors library: save it again with save_pretrained()"


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        tensors: the tensors in the order of their bytes.
        metadata: free text by name.
        data_start: the first byte of the values in the file.
        data_end: the byte after the last value.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    data_end: int


def header_length(prefix: bytes, origin: Origin, *, size: int | None = None) -> int:
    """Return the length of the JSON header in bytes.

    Args:
        prefix: the first 8 bytes of the file, or more.
        origin: the file.
        size: the size of the whole file in bytes, if known.

    Raises:
        CheckpointError: the bytes are not the start of a safetensors file.
    """
    if prefix.startswith(b"version "):
        raise origin.error(
            "the file is a Git LFS pointer, not the weights",
            hint="run `git lfs pull` in the folder, or fetch the repo with huggingface_hub",
        )
    if len(prefix) < LENGTH_BYTES:
        raise origin.error(f"the file has {len(prefix)} bytes, expected at least {LENGTH_BYTES}", hint=_DAMAGED)
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise origin.error(
            f"the header length is {length} bytes, expected at most {MAX_HEADER_BYTES}",
            hint="this is not a safetensors file, or its first bytes are damaged",
        )
    if size is not None and LENGTH_BYTES + length > size:
        raise origin.error(f"the header length is {length} bytes, but the whole file has {size}", hint=_DAMAGED)
    return length


def parse_header(read: Callable[[int, int], bytes], size: int | None, origin: Origin) -> Header:
    """Read and check a header.

    Args:
        read: a function that returns bytes of the file: `read(offset, length)`.
        size: the size of the whole file in bytes; None if unknown, which leaves its end unchecked.
        origin: the file; the tensors' `file` is its name.

    Raises:
        CheckpointError: the header is not valid, or does not describe the whole file.
    """
    length = header_length(read(0, LENGTH_BYTES), origin, size=size)
    text = read(LENGTH_BYTES, length)
    if len(text) != length:
        raise origin.error(f"the header is incomplete: {len(text)} of {length} bytes", hint=_DAMAGED)
    return check_header(_decode(text, origin), LENGTH_BYTES + length, size, origin)


def check_header(entries: Mapping[str, Any], data_start: int, size: int | None, origin: Origin) -> Header:
    """Check a decoded header.

    Args:
        entries: the JSON object of the header.
        data_start: the first byte of the values; the offsets in `entries` count from there.
        size: the size of the whole file in bytes, if known.
        origin: the file; the tensors' `file` is its name.

    Raises:
        CheckpointError: the header is not valid, or does not describe the whole file.
    """
    metadata = _metadata(entries.get("__metadata__"), origin)
    tensors = [_tensor(name, entry, data_start, origin) for name, entry in entries.items() if name != "__metadata__"]
    # Empty tensors share their offset with a neighbor and must come before it.
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    end = _check_gapless(tensors, data_start, origin)
    if size is not None and end != size:
        problem = "is cut short" if end > size else "has bytes that belong to no tensor"
        last = f" (last tensor: {tensors[-1].name!r})" if tensors else ""
        raise origin.error(
            f"the file {problem}: the header describes {end} bytes{last}, the file has {size}", hint=_DAMAGED
        )
    return Header({tensor.name: tensor for tensor in tensors}, metadata, data_start, end)


def _check_gapless(tensors: Sequence[TensorInfo], data_start: int, origin: Origin) -> int:
    """Return the byte after the last value; raise CheckpointError if tensors overlap or leave bytes between them."""
    end = data_start
    previous = "the header"
    for tensor in tensors:
        if tensor.offset != end:
            problem = "overlaps" if tensor.offset < end else "leaves a hole after"
            raise origin.error(
                f"tensor {tensor.name!r} {problem} {previous}: it begins at byte {tensor.offset - data_start} "
                f"of the values, expected {end - data_start}",
                hint=_MALFORMED,
                tensor=tensor.name,
            )
        end += tensor.nbytes
        previous = f"tensor {tensor.name!r}"
    return end


def _decode(text: bytes, origin: Origin) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise origin.error(f"the name {key!r} appears twice in the header", hint=_MALFORMED)
            found[key] = value
        return found

    def no_constant(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise origin.error(f"the header is not valid JSON: {error}", hint=_DAMAGED) from error
    if not isinstance(entries, dict):
        raise origin.error(f"the header is a {type(entries).__name__}, expected a JSON object", hint=_MALFORMED)
    return entries


def _metadata(found: Any, origin: Origin) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not all(isinstance(value, str) for value in found.values()):
        raise origin.error(
            f"`__metadata__` must map names to text, found {type(found).__name__}",
            hint=_MALFORMED,
        )
    return dict(found)


def _tensor(name: str, entry: Any, data_start: int, origin: Origin) -> TensorInfo:
    problem = _problem_of(name, entry)
    if problem is not None:
        raise origin.error(f"tensor {name!r}: {problem}", hint=_MALFORMED, tensor=name)
    code = entry["dtype"]
    if not isinstance(code, str) or code not in TORCH_DTYPES:
        raise _unknown_dtype(name, code, origin)
    shape, (begin, end), dtype = tuple(entry["shape"]), entry["data_offsets"], TORCH_DTYPES[code]
    expected = math.prod(shape) * dtype.itemsize
    if end - begin != expected:
        raise origin.error(
            f"tensor {name!r}: {end - begin} bytes, expected {expected} for shape {describe_shape(shape)} in {code}",
            hint=_MALFORMED,
            tensor=name,
        )
    return TensorInfo(name, shape, dtype, origin.file or "", data_start + begin, expected)


def _problem_of(name: str, entry: Any) -> str | None:
    """Return the first reason why the entry does not describe a tensor, None if it does; the dtype is not checked."""
    if not name or not name.isprintable():
        return "expected a name of printable characters"
    if not isinstance(entry, Mapping):
        return f"expected an object with {', '.join(_KEYS)}, found {type(entry).__name__}"
    missing = [key for key in _KEYS if key not in entry]
    if missing:
        return f"missing in the header: {', '.join(missing)}"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _natural_numbers(shape):
        return f"the shape must be a list of whole numbers >= 0, found {_short(shape)}"
    if not _natural_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"data_offsets must be a begin and an end with begin <= end, found {_short(offsets)}"
    return None


def _unknown_dtype(name: str, code: Any, origin: Origin) -> CheckpointError:
    return origin.error(
        f"tensor {name!r}: unknown dtype {_short(code)}, expected one of {', '.join(TORCH_DTYPES)}",
        hint="complex numbers are caches of positions, not weights: save the checkpoint without them"
        if str(code).startswith("C")
        else "merge an unquantized version of this checkpoint",
        tensor=name,
    )


def _natural_numbers(values: Any) -> bool:
    # Sizes are below 2**63, and arithmetic with far larger numbers would take too long.
    return isinstance(values, (list, tuple)) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
