"""Weights in `.bin` files are read, and no code in them is run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import open_checkpoint
from hubmerge.checkpoints.formats import pickle_reader
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors
from tests.checkpoints.models import model
from tests.checks import every


@pytest.mark.parametrize("mapped", [True, False])
def test_a_saved_state_dict_is_read_whole(tmp_path: Path, *, mapped: bool) -> None:
    state = model("BertForSequenceClassification").state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=mapped)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(state)
        for name, tensor in state.items():
            assert torch.equal(checkpoint.read(name), tensor)
            assert checkpoint.tensors[name].nbytes == tensor.nbytes
            assert b"".join(checkpoint.raw_chunks(name)) == tensor.contiguous().numpy().tobytes()


def test_strided_shared_and_parameter_tensors_are_read(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    saved = {
        "turned": whole.t(),
        "part": whole[1:, ::2],
        "tied": whole,
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "brain": torch.ones(3, dtype=torch.bfloat16),
    }
    torch.save(saved, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    for name, tensor in saved.items():
        read = checkpoint.read(name)
        assert torch.equal(read, tensor.detach())
        assert read.is_contiguous()
        assert not read.requires_grad


def test_a_read_tensor_has_memory_of_its_own(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    first = checkpoint.read("w").zero_()
    checkpoint.close()
    assert torch.equal(checkpoint.read("w"), torch.ones(1000))
    assert torch.equal(first, torch.zeros(1000))


def test_pickled_shards_are_read(tmp_path: Path) -> None:
    tensors = random_tensors({"a": (2, 3), "b": (4,)})
    places = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for name, file in places.items():
        torch.save({name: tensors[name]}, tmp_path / file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    checkpoint = open_checkpoint(tmp_path)
    assert every(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())
    (tmp_path / places["b"]).unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards missing"):
        open_checkpoint(tmp_path)


def test_the_file_is_mapped_anew_before_its_pages_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = random_tensors({f"t{number}": (100,) for number in range(10)})
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    monkeypatch.setattr(pickle_reader, "_MAX_TOUCHED_BYTES", 1000)
    for name in [*tensors, *tensors]:
        assert torch.equal(checkpoint.read(name), tensors[name])


class RunsACommand:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class CallsPython:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.mark)!r}, 'w').close()",)


def as_torch_saves_it(path: Path, value: object) -> None:
    torch.save(value, path)


def as_old_torch_saved_it(path: Path, value: object) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def as_a_bare_pickle(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def as_a_new_pickle(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, protocol=5))


def hidden_in_a_zip(path: Path, value: object) -> None:
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, pickle.dumps(value, 2) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("attack", [RunsACommand, CallsPython])
@pytest.mark.parametrize(
    "store", [as_torch_saves_it, as_old_torch_saved_it, as_a_bare_pickle, as_a_new_pickle, hidden_in_a_zip]
)
def test_code_in_a_pickle_is_refused_and_never_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: Callable[[Path], object],
    store: Callable[[Path, object], None],
) -> None:
    mark = tmp_path / "executed"
    # The attack works on an ordinary unpickler: otherwise the test would prove nothing.
    pickle.loads(pickle.dumps(attack(mark)))
    assert mark.exists()
    mark.unlink()

    (tmp_path / "model").mkdir()
    store(tmp_path / "model" / "pytorch_model.bin", {"w": attack(mark)})
    # With this variable, torch drops its restriction unless the caller asks for it.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: (refused|not a readable)") as caught:
        open_checkpoint(tmp_path / "model")
    assert not mark.exists()
    assert "weights_only" not in str(caught.value)


def test_the_message_names_the_function_that_the_pickle_calls(tmp_path: Path) -> None:
    torch.save({"w": RunsACommand(tmp_path / "executed")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"system") as caught:
        open_checkpoint(tmp_path)
    assert "convert it to safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([torch.ones(2)], "contains a list"),
        ({"state_dict": {"w": torch.ones(2)}}, "'state_dict' is of type dict"),
        ({"w": torch.ones(2), "epoch": 3}, "'epoch' is of type int"),
        ({1: torch.ones(2)}, "entry 1"),
        ({"w": torch.ones(2).to_sparse()}, "'w' is torch.sparse_coo"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "'w' is .*complex64"),
        ({"w": torch.ones(1).expand(10**12)}, "'w' has 4000000000000 bytes"),
        ({"w": torch.ones(2, device="meta")}, "'w' is .* on meta"),
        ({}, "contain no tensors"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, value: object, expected: str) -> None:
    torch.save(value, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x80\x02.", b"no pickle at all"])
def test_other_bin_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save(random_tensors({"a": (50, 50), "b": (50,)}), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="not a readable torch file"):
        open_checkpoint(tmp_path)


def test_a_file_replaced_after_opening_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(4)}, path)
    checkpoint = open_checkpoint(tmp_path)
    checkpoint.close()
    path.unlink()
    torch.save({"w": torch.ones(5)}, path)
    with pytest.raises(CheckpointError, match="'w' changed after the file was opened"):
        checkpoint.read("w")
