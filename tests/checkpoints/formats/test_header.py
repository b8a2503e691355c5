"""Valid headers of safetensors files are read, and invalid ones are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from hubmerge.errors import CheckpointError
from tests.checkpoints.files import header_bytes, parse

GOOD: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
}


def changed(name: str, **changes: Any) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **changes}}


def test_headers_written_by_the_library_are_read() -> None:
    content = save({"w": torch.zeros(3, 5), "half": torch.zeros(7, dtype=torch.float16)}, {"format": "pt"})
    header = parse(content)
    assert header.metadata == {"format": "pt"}
    assert {name: (info.shape, info.dtype) for name, info in header.tensors.items()} == {
        "w": ((3, 5), torch.float32),
        "half": ((7,), torch.float16),
    }
    assert header.data_end == len(content)
    assert min(info.offset for info in header.tensors.values()) == header.data_start


def test_empty_tensors_and_scalars_are_read() -> None:
    content = save({"none": torch.zeros(0, 3), "one": torch.tensor(1.5), "two": torch.zeros(2)})
    tensors = parse(content).tensors
    assert (tensors["none"].nbytes, tensors["one"].shape, tensors["two"].nbytes) == (0, (), 8)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (changed("a", dtype="F4"), ["'a'", "F4", "BF16"]),
        (changed("a", dtype=["F32"]), ["'a'", "dtype"]),
        (changed("a", shape=[2, 4]), ["'a'", "24 bytes", "expected 32"]),
        (changed("a", shape=[-2, -3]), ["'a'", "whole numbers"]),
        (changed("a", shape=[2, 3.0]), ["'a'", "whole numbers"]),
        (changed("a", shape=[True, 6]), ["'a'", "whole numbers"]),
        (changed("a", shape=6), ["'a'", "whole numbers"]),
        (changed("a", shape=[2**70, 0]), ["'a'", "whole numbers"]),
        (changed("a", data_offsets=[24, 0]), ["'a'", "begin <= end"]),
        (changed("a", data_offsets=[0]), ["'a'", "begin and an end"]),
        (changed("b", data_offsets=[20, 28]), ["'b'", "overlaps tensor 'a'", "20", "24"]),
        (changed("b", data_offsets=[28, 36]), ["'b'", "hole after tensor 'a'", "28", "24"]),
        (changed("a", data_offsets=[4, 28]), ["'a'", "hole after the header"]),
        ({**GOOD, "c": {"dtype": "U8", "shape": [9], "data_offsets": [32, 41]}}, ["cut short", "'c'"]),
        ({**GOOD, "a": 3}, ["'a'", "int"]),
        ({**GOOD, "a": {"dtype": "F32"}}, ["'a'", "missing in the header: shape, data_offsets"]),
        ({**GOOD, "": GOOD["a"]}, ["''", "printable"]),
        ({**GOOD, "a\nb": GOOD["a"]}, ["printable"]),
        ({**GOOD, "\ud800": GOOD["a"]}, ["printable"]),
        ({**GOOD, "__metadata__": {"a": 1}}, ["__metadata__"]),
        ({**GOOD, "__metadata__": "pt"}, ["__metadata__"]),
        ([GOOD], ["list", "a JSON object"]),
        (b'{"a": NaN}', ["not valid JSON"]),
        (b'{"a": ', ["not valid JSON"]),
        (b"\xff\xfe{}", ["not valid JSON"]),
        (b'{"a": ' + b"[" * 100_000, ["not valid JSON"]),
        (b'{"a": {"dtype": "F32", "dtype": "F16"}}', ["'dtype' appears twice"]),
    ],
)
def test_an_invalid_header_is_refused_with_file_and_tensor(entries: Any, expected: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse(header_bytes(entries) + bytes(32))
    for text in ["there/model.safetensors", *expected]:
        assert text in caught.value.message
    assert caught.value.hint


def test_a_name_that_appears_twice_is_refused() -> None:
    text = json.dumps(GOOD)
    doubled = text[:-1] + ', "a": ' + json.dumps(GOOD["a"]) + "}"
    with pytest.raises(CheckpointError, match="'a' appears twice"):
        parse(header_bytes(doubled.encode()) + bytes(32))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "0 bytes"),
        (b"\x10\x00\x00", "3 bytes"),
        ((100_000_001).to_bytes(8, "little") + b"{}", "at most 100000000"),
        ((2**64 - 1).to_bytes(8, "little") + b"{}", "at most 100000000"),
        ((1000).to_bytes(8, "little") + b"{}", "the whole file has 10"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (header_bytes(GOOD) + bytes(31), "cut short"),
        (header_bytes(GOOD) + bytes(33), "belong to no tensor"),
    ],
)
def test_other_files_are_refused(content: bytes, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        parse(content)


CONTENT = header_bytes(GOOD) + bytes(32)


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(CONTENT) - 33), byte=st.integers(0, 255))
def test_one_changed_byte_is_refused_or_still_describes_the_file(position: int, byte: int) -> None:
    content = CONTENT[:position] + bytes([byte]) + CONTENT[position + 1 :]
    try:
        header = parse(content)
    except CheckpointError:
        return
    assert_covers(header, content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "U8", "BOOL", "X"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(entries=st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=4), rest=st.integers(0, 40))
def test_any_json_is_refused_or_describes_the_file(entries: dict[str, Any], rest: int) -> None:
    content = header_bytes(json.dumps(entries).encode()) + bytes(rest)
    try:
        header = parse(content)
    except CheckpointError:
        return
    assert_covers(header, content)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(CONTENT) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(CheckpointError):
        parse(CONTENT[:length])


def assert_covers(header: Any, content: bytes) -> None:
    """Check that each byte after the header belongs to exactly one tensor."""
    owners = [0] * len(content)
    for info in header.tensors.values():
        count = info.dtype.itemsize
        for side in info.shape:
            count *= side
        assert count == info.nbytes
        for place in range(info.offset, info.offset + info.nbytes):
            owners[place] += 1
    assert owners == [0] * header.data_start + [1] * (len(content) - header.data_start)
