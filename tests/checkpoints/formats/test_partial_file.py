"""Files of which only what is read is brought here: the right values, few requests, nothing fetched twice."""

from __future__ import annotations

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

FILE = "model.safetensors"


class Elsewhere:
    """Stands for the server: the whole file, and every range that was asked of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.values = {f"t{n}": torch.full((n + 1, 64), float(n)) for n in range(12)}
        self.values["empty"] = torch.empty(0, 4)
        save_file(self.values, folder / FILE)
        self.data = (folder / FILE).read_bytes()
        self.header = self.data[: LENGTH_BYTES + header_length(self.data[:8], Origin("there"))]
        self.asked: list[tuple[int, int]] = []
        self.fails_after: int | None = None
        self._lock = threading.Lock()

    def fetch(self, file: str, offset: int, length: int) -> bytes:
        assert file == FILE
        with self._lock:
            if self.fails_after is not None and len(self.asked) >= self.fails_after:
                raise HubError("gone")
            self.asked.append((offset, length))
        return self.data[offset : offset + length]

    def open(self, folder: Path) -> Checkpoint:
        create_partial_file(folder / FILE, self.header, len(self.data))
        return open_checkpoint(folder, "it", fetch=self.fetch)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "elsewhere")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "PIECE_BYTES", 1000)
    monkeypatch.setattr(partial_file, "GAP_BYTES", 0)


def check(elsewhere: Elsewhere, checkpoint: Checkpoint, *names: str) -> None:
    for name in names:
        value = checkpoint.read(name)
        assert torch.equal(value, elsewhere.values[name])
        assert value.shape == elsewhere.values[name].shape


def test_what_is_read_in_pieces_is_fetched_first(tmp_path: Path, elsewhere: Elsewhere) -> None:
    with elsewhere.open(tmp_path / "here") as checkpoint:
        for name in ("t5", "empty"):
            value = torch.cat([piece.clone() for piece in checkpoint.read_pieces(name, 100)])
            assert torch.equal(value, elsewhere.values[name].reshape(-1))
        assert elsewhere.asked


def test_only_what_is_read_is_fetched_and_once(tmp_path: Path, elsewhere: Elsewhere) -> None:
    with elsewhere.open(tmp_path / "here") as checkpoint:
        assert not elsewhere.asked
        check(elsewhere, checkpoint, "t3", "empty", "t3")
        assert sum(length for _, length in elsewhere.asked) == elsewhere.values["t3"].nbytes
        asked = len(elsewhere.asked)
    with elsewhere.open(tmp_path / "here") as checkpoint:
        check(elsewhere, checkpoint, "t3")
    assert len(elsewhere.asked) == asked


def test_neighbours_are_fetched_together(tmp_path: Path, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "PIECE_BYTES", 1 << 20)
    with elsewhere.open(tmp_path / "here") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
        assert len(elsewhere.asked) == 1
        check(elsewhere, checkpoint, *elsewhere.values)
        assert len(elsewhere.asked) == 1
    stored = load_file(tmp_path / "here" / FILE)
    assert all(torch.equal(stored[name], value) for name, value in elsewhere.values.items())


def test_holes_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / FILE
    big = torch.zeros(1 << 20)
    save_file({"big": big}, path)
    data = path.read_bytes()
    header = data[: LENGTH_BYTES + header_length(data[:8], Origin("there"))]
    create_partial_file(tmp_path / "here" / FILE, header, len(data))
    found = (tmp_path / "here" / FILE).stat()
    assert found.st_size == len(data)
    assert found.st_blocks * 512 < 100_000


def test_an_interrupted_fetch_goes_on(tmp_path: Path, elsewhere: Elsewhere) -> None:
    elsewhere.fails_after = 3
    with elsewhere.open(tmp_path / "here") as checkpoint, pytest.raises(HubError, match="gone"):
        checkpoint.prepare(checkpoint.tensors)
    assert len(elsewhere.asked) == 3
    elsewhere.fails_after = None
    # The machine stopped while a line was being written.
    record = ranges_path(tmp_path / "here" / FILE)
    with record.open("a") as stream:
        stream.write("0 99999")
    with elsewhere.open(tmp_path / "here") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
        check(elsewhere, checkpoint, *elsewhere.values)
    asked = sum(length for _, length in elsewhere.asked)
    assert asked == len(elsewhere.data) - len(elsewhere.header)


def test_a_file_of_another_header_or_length_is_begun_anew(tmp_path: Path, elsewhere: Elsewhere) -> None:
    with elsewhere.open(tmp_path / "here") as checkpoint:
        checkpoint.prepare(checkpoint.tensors)
    path = tmp_path / "here" / FILE
    other = Elsewhere(tmp_path / "other")
    other.values["t0"] = torch.zeros(7)
    save_file(other.values, tmp_path / "other" / FILE)
    other.data = (tmp_path / "other" / FILE).read_bytes()
    other.header = other.data[: LENGTH_BYTES + header_length(other.data[:8], Origin("there"))]
    with other.open(tmp_path / "here") as checkpoint:
        check(other, checkpoint, "t0", "t5")
    assert len(path.read_bytes()) == len(other.data)


def test_many_threads_fetch_each_byte_once(tmp_path: Path, elsewhere: Elsewhere) -> None:
    with elsewhere.open(tmp_path / "here") as checkpoint:
        failed: list[str] = []

        def read(name: str) -> None:
            if not torch.equal(checkpoint.read(name), elsewhere.values[name]):
                failed.append(name)

        threads = [threading.Thread(target=read, args=(name,)) for name in [*elsewhere.values] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert not failed
    assert sum(length for _, length in elsewhere.asked) == len(elsewhere.data) - len(elsewhere.header)


@pytest.mark.parametrize("how", ["opened", "sent"])
def test_without_a_line_only_what_is_here_can_be_read(tmp_path: Path, elsewhere: Elsewhere, how: str) -> None:
    with elsewhere.open(tmp_path / "here") as checkpoint:
        checkpoint.prepare(["t1", "t2"])
        sent = pickle.loads(pickle.dumps(checkpoint))
    with open_checkpoint(tmp_path / "here", "it") if how == "opened" else sent as other:
        check(elsewhere, other, "t1", "t2", "empty")
        with pytest.raises(CheckpointError, match=r"it/model\.safetensors: bytes \d+ to \d+ were not fetched"):
            other.read("t3")


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1])))


def bytes_of(ranges: object) -> set[int]:
    return {place for begin, end in ranges for place in range(begin, end)}  # type: ignore[attr-defined]


@given(RANGES, RANGES)
def test_arithmetic_of_ranges(wanted: list[tuple[int, int]], here: list[tuple[int, int]]) -> None:
    found = missing_ranges(wanted, merge_ranges(here))
    assert bytes_of(found) == bytes_of(wanted) - bytes_of(here)
    assert bytes_of(merge_ranges(here)) == bytes_of(here)
    assert all(first[1] < second[0] for first, second in zip(merge_ranges(here), merge_ranges(here)[1:], strict=False))


def test_pieces_are_bounded_and_bridge_small_gaps() -> None:
    pieces = split_ranges([(0, 300), (305, 1500), (1600, 1700)], most=1000, gap=10)
    assert pieces == [(0, 1000), (1000, 1500), (1600, 1700)]
