"""Reads and writes at positions, with the calls of POSIX and without them."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from hubmerge.checkpoints.formats.safetensors_writer import SafetensorsWriter
from hubmerge.checkpoints.open import open_checkpoint
from hubmerge.checkpoints.tensors import TensorSpec
from hubmerge.errors import MachineError
from hubmerge.support import child_signals
from hubmerge.support.files import write_text_atomic
from hubmerge.support.positions import OPEN_FLAGS, read_at, write_at
from tests.checks import every

POSIX = ("preadv", "pwrite", "pread", "posix_fallocate", "O_DIRECTORY")


@pytest.fixture(params=["posix", "other"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Remove, for one run, what Windows does not have."""
    if request.param == "other":
        for name in POSIX:
            monkeypatch.delattr(os, name)
        for name in ("pthread_kill", "pthread_sigmask"):
            monkeypatch.delattr(signal, name)
    return str(request.param)


@pytest.mark.usefixtures("system")
def test_threads_read_and_write_their_own_places(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | OPEN_FLAGS)
    pieces = {offset: bytes([offset % 251]) * 1000 for offset in range(0, 200_000, 1000)}

    def check(offset: int) -> bool:
        target = memoryview(bytearray(1000))
        return read_at(descriptor, target, offset) == 1000 and target == pieces[offset]

    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda offset: write_at(descriptor, memoryview(pieces[offset]), offset), pieces))
            assert every(pool.map(check, pieces))
        assert read_at(descriptor, memoryview(bytearray(10)), 200_000) == 0
        assert read_at(descriptor, memoryview(bytearray(10)), 199_997) == 3
    finally:
        os.close(descriptor)


@pytest.mark.usefixtures("system")
def test_a_checkpoint_is_written_and_read(tmp_path: Path) -> None:
    values = {name: torch.arange(12, dtype=torch.float32).reshape(3, 4) + number for number, name in enumerate("abc")}
    specs = [TensorSpec(name, value.dtype, tuple(value.shape)) for name, value in values.items()]
    with SafetensorsWriter(tmp_path / "model.safetensors", specs) as writer:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda name: writer.write(name, values[name]), values))
        writer.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    checkpoint = open_checkpoint(tmp_path, "x")
    for name, value in values.items():
        assert torch.equal(checkpoint.read(name), value)


@pytest.mark.usefixtures("system")
def test_folders_are_flushed_where_the_system_can(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "file", "one\ntwo\n")
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


@pytest.mark.usefixtures("system")
def test_children_are_started_with_and_without_masks() -> None:
    with child_signals.kept_from_children():
        pass


def test_a_file_that_cannot_be_renamed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors" / "full").mkdir(parents=True)
    writer = SafetensorsWriter(tmp_path / "model.safetensors", [TensorSpec("a", torch.float32, (1,))])
    writer.write("a", torch.ones(1))
    with pytest.raises(MachineError, match=r"a file of .* bytes"):
        writer.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
