"""Shards and their index: read as transformers reads them, and refused where they contradict each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Checkpoint, open_checkpoint, open_headers
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import SHARDS, random_tensors, sharded, write_file
from tests.checks import every


def test_all_shards_of_a_valid_index_are_read(tmp_path: Path) -> None:
    assert set(open_checkpoint(sharded(tmp_path, SHARDS)).tensors) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "file",
    [
        "../two.safetensors",
        "/etc/two.safetensors",
        "x/../../two.safetensors",
        "..\\two.safetensors",
        "C:two.safetensors",
        "two.bin",
        "",
        "two\n.safetensors",
        7,
    ],
)
def test_an_index_with_a_file_outside_the_folder_is_refused(tmp_path: Path, file: Any) -> None:
    # What it points to exists and is whole: it must be refused for its place alone.
    write_file(tmp_path / "two.safetensors", random_tensors({"c": (2,)}))
    with pytest.raises(CheckpointError, match=r"'c' is listed for .*inside the folder"):
        open_checkpoint(sharded(tmp_path / "folder", {**SHARDS, "c": file}))


INDEXED_ONLY = r"/model\.safetensors\.index\.json: the index lists tensor 'd' for one\.safetensors, but no shard has it"


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({**SHARDS, "c": "three.safetensors"}, "1 of 2 shards missing: three.safetensors"),
        ({**SHARDS, "d": "one.safetensors"}, INDEXED_ONLY),
        ({}, "weight_map"),
        (None, "weight_map"),
    ],
)
def test_an_index_that_contradicts_the_files_is_refused(tmp_path: Path, weight_map: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(sharded(tmp_path, weight_map))


def test_the_headers_of_shards_without_a_tensor_of_the_index_give_the_same_error(tmp_path: Path) -> None:
    folder = sharded(tmp_path, {**SHARDS, "d": "one.safetensors"})
    headers = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    index = (folder / "model.safetensors.index.json").read_bytes()
    with pytest.raises(CheckpointError, match=INDEXED_ONLY) as caught:
        open_headers(headers, {}, "there", index=index)
    assert caught.value.context.tensor == "d"
    assert caught.value.hint is not None
    assert "remove its line from the index" in caught.value.hint


def opened_both_ways(folder: Path) -> Checkpoint:
    """Open a folder from its files; opening the headers alone must find the same."""
    found = open_checkpoint(folder, "there")
    headers = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    index = (folder / "model.safetensors.index.json").read_bytes()
    from_headers = open_headers(headers, {}, "there", index=index)
    assert (from_headers.tensors, from_headers.notes) == (found.tensors, found.notes)
    return found


def read_by_transformers(folder: Path, index: str = "model.safetensors.index.json") -> dict[str, torch.Tensor]:
    """Return the tensors of shards in the order in which transformers reads them."""
    from transformers.modeling_utils import load_state_dict
    from transformers.utils.hub import get_checkpoint_shard_files

    content = json.loads((folder / index).read_text())
    (folder / index).write_text(json.dumps({**content, "metadata": {}}))
    found = {}
    for file in get_checkpoint_shard_files(str(folder), str(folder / index))[0]:
        found.update(load_state_dict(file))
    return found


@pytest.mark.parametrize("listed_for", ["one.safetensors", "two.safetensors"])
@pytest.mark.parametrize("shape", [(2,), (5,)])
def test_of_a_tensor_in_two_shards_the_last_one_is_read(tmp_path: Path, listed_for: str, shape: tuple[int]) -> None:
    folder = sharded(tmp_path, {**SHARDS, "a": listed_for})
    write_file(folder / "two.safetensors", random_tensors({"c": (2,), "a": shape}, seed=7))
    found = opened_both_ways(folder)
    expected = read_by_transformers(folder)
    assert found.tensors.keys() == expected.keys()
    assert every(torch.equal(found.read(name), value) for name, value in expected.items())
    assert found.tensors["a"].shape == shape
    assert found.notes == (
        "there: tensor 'a' is in more than one shard: read from the last one (two.safetensors), as in transformers",
    )


@pytest.mark.parametrize(
    ("weight_map", "note"),
    [
        (
            {"a": "one.safetensors", "c": "two.safetensors"},
            "there: tensor 'b' is not in the index: read from one.safetensors, as in transformers",
        ),
        (
            {**SHARDS, "b": "two.safetensors"},
            "there: tensor 'b' is in one.safetensors, not in two.safetensors: read from there, as in transformers",
        ),
    ],
)
def test_tensors_that_the_index_does_not_list_as_they_are(tmp_path: Path, weight_map: Any, note: str) -> None:
    folder = sharded(tmp_path, weight_map)
    found = opened_both_ways(folder)
    expected = read_by_transformers(folder)
    assert found.tensors.keys() == expected.keys() == {"a", "b", "c"}
    assert every(torch.equal(found.read(name), value) for name, value in expected.items())
    assert found.notes == (note,)


def test_pickled_shards_are_read_as_transformers_does(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model-2.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "c": "pytorch_model-2.bin"}}))
    with pytest.raises(CheckpointError, match=r"lists tensor 'c' for pytorch_model-2\.bin, but no shard has it"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-2.bin", "b": "pytorch_model-1.bin"}}))
    found, expected = open_checkpoint(tmp_path), read_by_transformers(tmp_path, index.name)
    assert every(torch.equal(found.read(name), value) for name, value in expected.items())
    assert len(found.notes) == 1
