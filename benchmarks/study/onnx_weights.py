"""Weights of an ONNX file, read without a library: the few fields of its protocol buffers that hold them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

Field = tuple[int, int | memoryview]
"""Number and value of a field: an integer, or the bytes of everything else."""

GRAPH, NODE, INITIALIZER = 7, 1, 5
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9
INPUT, NODE_NAME = 1, 3
FLOAT = 1


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Return the float32 constants of a graph by name.

    Exported linear layers without a name get that of their product, and are transposed to (outputs, inputs).
    """
    (graph,) = (value for number, value in fields(memoryview(file.read_bytes())) if number == GRAPH)
    weights: dict[str, torch.Tensor] = {}
    named: dict[str, str] = {}
    for number, value in fields(graph):
        if number == INITIALIZER:
            weights |= constant(value)
        elif number == NODE:
            found = [*fields(value)]
            name = next((text(v) for n, v in found if n == NODE_NAME), "")
            inputs = [text(v) for n, v in found if n == INPUT]
            if name.endswith("/MatMul") and inputs[-1].startswith("onnx::"):
                named[inputs[-1]] = name.removesuffix("/MatMul").strip("/").replace("/", ".") + ".weight"
    return {named.get(name, name): values.T if name in named else values for name, values in weights.items()}


def constant(value: int | memoryview) -> dict[str, torch.Tensor]:
    """Return one constant by its name, nothing if it is not float32."""
    found = [*fields(value)]
    shape = [size for number, sizes in found if number == DIMS for size in whole_numbers(sizes)]
    raw = next((v for n, v in found if n == RAW_DATA), None)
    if (DATA_TYPE, FLOAT) not in found or not isinstance(raw, memoryview):
        return {}
    name = next(text(v) for n, v in found if n == NAME)
    return {name: torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)}


def whole_numbers(value: int | memoryview) -> list[int]:
    """Return a repeated integer field, packed or not."""
    if isinstance(value, int):
        return [value]
    found, place = [], 0
    while place < len(value):
        number, place = varint(value, place)
        found.append(number)
    return found


def text(value: int | memoryview) -> str:
    """Return the text of a field."""
    return "" if isinstance(value, int) else bytes(value).decode("utf-8")


def fields(message: int | memoryview) -> Iterator[Field]:
    """Yield the fields of a message."""
    place = 0
    data = memoryview(b"") if isinstance(message, int) else message
    while place < len(data):
        key, place = varint(data, place)
        if key & 7 == 0:
            value, place = varint(data, place)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(key & 7)
        if size is None:
            size, place = varint(data, place)
        yield key >> 3, data[place : place + size]
        place += size


def varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return the integer at a place, and the place after it."""
    number = shift = 0
    while True:
        byte = data[place]
        number |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return number, place
