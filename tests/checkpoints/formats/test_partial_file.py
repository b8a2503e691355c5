"""Tensors of a file on another machine are fetched when they are read, in few requests and only once."""

from __future__ import annotations

import itertools
import pickle
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import Checkpoint, Origin, create_partial_file, open_checkpoint
from hubmerge.checkpoints.formats import partial_file
from hubmerge.checkpoints.formats.header import LENGTH_BYTES, header_length
from hubmerge.checkpoints.formats.partial_file import ranges_path
from hubmerge.checkpoints.formats.ranges import merge_ranges, missing_ranges, split_ranges
from hubmerge.errors import CheckpointError, HubError
from tests.checks import every

FILE = "model.safetensors"


class Remote:
    """A server: the whole file, and every range that was requested."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.values = {f"t{n}": torch.full((n + 1, 64), float(n)) for n in range(12)}
        self.values["empty"] = torch.empty(0, 4)
        save_file(self.values, folder / FILE)
        self.data = (folder / FILE).read_bytes()
        self.header = self.data[: LENGTH_BYTES + header_length(self.data[:8], Origin("there"))]
        self.requested: list[tuple[int, int]] = []
        self.fails_after: int | None = None
        self._lock = threading.Lock()

    def fetch(self, file: str, offset: int, length: int) -> bytes:
        assert file == FILE
        with self._lock:
            if self.fails_after is not None and len(self.requested) >= self.fails_after:
                raise HubError("gone")
            self.requested.append((offset, length))
        return self.data[offset : offset + length]

    def open(self, folder: Path) -> Checkpoint:
        create_partial_file(folder / FILE, self.header, len(self.data))
        return open_checkpoint(folder, "it", fetch=self.fetch)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "PIECE_BYTES", 1000)
    monkeypatch.setattr(partial_file, "GAP_BYTES", 0)


def check(remote: Remote, checkpoint: Checkpoint, *names: str) -> None:
    for name in names:
        value = checkpoint.read(name)
        assert torch.equal(value, remote.values[name])
        assert value.shape == remote.values[name].shape


def test_a_tensor_read_in_pieces_is_fetched_first(tmp_path: Path, remote: Remote) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        for name in ("t5", "empty"):
            value = torch.cat([piece.clone() for piece in checkpoint.read_pieces(name, 100)])
            assert torch.equal(value, remote.values[name].reshape(-1))
        assert remote.requested


def test_only_tensors_that_are_read_are_fetched_and_only_once(tmp_path: Path, remote: Remote) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        assert not remote.requested
        check(remote, checkpoint, "t3", "empty", "t3")
        assert sum(length for _, length in remote.requested) == remote.values["t3"].nbytes
        requested = len(remote.requested)
    with remote.open(tmp_path / "local") as checkpoint:
        check(remote, checkpoint, "t3")
    assert len(remote.requested) == requested


def test_neighbors_are_fetched_in_one_request(tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "PIECE_BYTES", 1 << 20)
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
        assert len(remote.requested) == 1
        check(remote, checkpoint, *remote.values)
        assert len(remote.requested) == 1
    stored = load_file(tmp_path / "local" / FILE)
    assert every(torch.equal(stored[name], value) for name, value in remote.values.items())


def test_values_that_are_not_fetched_use_no_disk_space(tmp_path: Path) -> None:
    path = tmp_path / FILE
    big = torch.zeros(1 << 20)
    save_file({"big": big}, path)
    data = path.read_bytes()
    header = data[: LENGTH_BYTES + header_length(data[:8], Origin("there"))]
    create_partial_file(tmp_path / "local" / FILE, header, len(data))
    found = (tmp_path / "local" / FILE).stat()
    assert found.st_size == len(data)
    assert found.st_blocks * 512 < 100_000


def test_an_interrupted_fetch_continues(tmp_path: Path, remote: Remote) -> None:
    remote.fails_after = 3
    with remote.open(tmp_path / "local") as checkpoint, pytest.raises(HubError, match="gone"):
        checkpoint.prepare(checkpoint.tensors)
    assert len(remote.requested) == 3
    remote.fails_after = None
    # The machine stopped while a line was being written.
    record = ranges_path(tmp_path / "local" / FILE)
    with record.open("a") as stream:
        stream.write("0 99999")
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
        check(remote, checkpoint, *remote.values)
    requested = sum(length for _, length in remote.requested)
    assert requested == len(remote.data) - len(remote.header)


def test_a_damaged_range_is_fetched_again(tmp_path: Path, remote: Remote) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
    path = tmp_path / "local" / FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = len(remote.requested)
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
        check(remote, checkpoint, *remote.values)
    assert len(remote.requested) == before + 1


def test_a_file_with_another_header_or_length_is_created_again(tmp_path: Path, remote: Remote) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
    path = tmp_path / "local" / FILE
    other = Remote(tmp_path / "other")
    other.values["t0"] = torch.zeros(7)
    save_file(other.values, tmp_path / "other" / FILE)
    other.data = (tmp_path / "other" / FILE).read_bytes()
    other.header = other.data[: LENGTH_BYTES + header_length(other.data[:8], Origin("there"))]
    with other.open(tmp_path / "local") as checkpoint:
        check(other, checkpoint, "t0", "t5")
    assert len(path.read_bytes()) == len(other.data)


def test_many_threads_fetch_each_byte_once(tmp_path: Path, remote: Remote) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        failed: list[str] = []

        def read(name: str) -> None:
            if not torch.equal(checkpoint.read(name), remote.values[name]):
                failed.append(name)

        threads = [threading.Thread(target=read, args=(name,)) for name in [*remote.values] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not failed
    assert sum(length for _, length in remote.requested) == len(remote.data) - len(remote.header)


@pytest.mark.parametrize("way", ["opened", "sent"])
def test_without_a_connection_only_fetched_tensors_can_be_read(tmp_path: Path, remote: Remote, way: str) -> None:
    with remote.open(tmp_path / "local") as checkpoint:
        checkpoint.prepare(["t1", "t2"])
        sent = pickle.loads(pickle.dumps(checkpoint))
    with open_checkpoint(tmp_path / "local", "it") if way == "opened" else sent as other:
        check(remote, other, "t1", "t2", "empty")
        with pytest.raises(CheckpointError, match=r"it/model\.safetensors: bytes \d+ to \d+ were not fetched"):
            other.read("t3")


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def bytes_of(ranges: object) -> set[int]:
    return {place for begin, end in ranges for place in range(begin, end)}  # type: ignore[attr-defined]


@given(RANGES, RANGES)
def test_ranges_are_merged_and_subtracted(requested: list[tuple[int, int]], present: list[tuple[int, int]]) -> None:
    found = missing_ranges(requested, merge_ranges(present))
    assert bytes_of(found) == bytes_of(requested) - bytes_of(present)
    assert bytes_of(merge_ranges(present)) == bytes_of(present)
    merged = merge_ranges(present)
    assert not [(first, second) for first, second in itertools.pairwise(merged) if first[1] >= second[0]]


def test_pieces_are_bounded_and_bridge_small_gaps() -> None:
    pieces = split_ranges([(0, 300), (305, 1500), (1600, 1700)], most=1000, gap=10)
    assert pieces == [(0, 1000), (1000, 1500), (1600, 1700)]
