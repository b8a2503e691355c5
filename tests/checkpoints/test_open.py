"""Checkpoints are opened from folders and from headers, and invalid ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Checkpoint, Origin, find_weights, open_checkpoint, open_headers
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, write_file, write_folder
from tests.checkpoints.models import model, save


@pytest.mark.parametrize("limit", ["5GB", "40KB"])
def test_a_saved_model_is_read_whole(tmp_path: Path, limit: str) -> None:
    save("BertForMaskedLM", tmp_path, max_shard_size=limit)
    assert (tmp_path / "model.safetensors.index.json").exists() is (limit == "40KB")
    state = model("BertForMaskedLM").state_dict()
    with open_checkpoint(tmp_path, "owner/bert@main") as checkpoint:
        assert checkpoint.label == "owner/bert@main"
        assert checkpoint.config["model_type"] == "bert"
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
        assert set(checkpoint.tensors) == set(state) - tied
        for name in checkpoint.tensors:
            assert torch.equal(checkpoint.read(name), state[name])


def test_raw_chunks_are_the_stored_bytes(tmp_path: Path) -> None:
    tensors = {"large": torch.arange(3_000_000, dtype=torch.float32), "none": torch.zeros(0)}
    checkpoint = open_checkpoint(write_folder(tmp_path, tensors))
    chunks = [bytes(chunk) for chunk in checkpoint.raw_chunks("large")]
    assert len(chunks) == 2
    assert b"".join(chunks) == tensors["large"].numpy().tobytes()
    assert list(checkpoint.raw_chunks("none")) == []


def test_a_missing_tensor_is_an_error_with_its_name(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_folder(tmp_path, random_tensors({"a": (2,)})), "owner/model")
    with pytest.raises(CheckpointError, match=r"owner/model: no tensor 'b' among its 1"):
        checkpoint.read("b")


def test_a_missing_config_is_empty_and_an_invalid_one_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, random_tensors({"a": (2,)}))
    assert open_checkpoint(folder).config == {}
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object, found list"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "found nothing"),
        (["model.onnx", "README.md"], "found .*model.onnx"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter, not a whole model"),
    ],
)
def test_a_folder_without_weights_is_refused(tmp_path: Path, files: list[str], expected: str) -> None:
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder"):
        open_checkpoint(tmp_path / "gone")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["pytorch_model.bin", "model.safetensors.index.json", "model.safetensors"], "model.safetensors"),
        (["pytorch_model.bin", "model.safetensors.index.json"], "model.safetensors.index.json"),
        (["pytorch_model.bin.index.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["pytorch_model.bin.index.json"], "pytorch_model.bin.index.json"),
    ],
)
def test_weights_are_chosen_as_in_transformers(names: list[str], chosen: str) -> None:
    weights = find_weights(names, Origin("owner/model"))
    assert (weights.single or weights.index) == chosen
    assert weights.kind == ("pickle" if ".bin" in chosen else "safetensors")


def sharded(folder: Path, weight_map: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_file(folder / "one.safetensors", random_tensors({"a": (2,), "b": (3,)}))
    write_file(folder / "two.safetensors", random_tensors({"c": (2,)}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


RIGHT = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


def test_all_shards_of_a_valid_index_are_read(tmp_path: Path) -> None:
    assert set(open_checkpoint(sharded(tmp_path, RIGHT)).tensors) == {"a", "b", "c"}


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
        open_checkpoint(sharded(tmp_path / "folder", {**RIGHT, "c": file}))


INDEXED_ONLY = r"/model\.safetensors\.index\.json: the index lists tensor 'd' for one\.safetensors, but no shard has it"


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({**RIGHT, "c": "three.safetensors"}, "1 of 2 shards missing: three.safetensors"),
        ({**RIGHT, "d": "one.safetensors"}, INDEXED_ONLY),
        ({}, "weight_map"),
        (None, "weight_map"),
    ],
)
def test_an_index_that_contradicts_the_files_is_refused(tmp_path: Path, weight_map: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(sharded(tmp_path, weight_map))


def test_the_headers_of_shards_without_a_tensor_of_the_index_give_the_same_error(tmp_path: Path) -> None:
    folder = sharded(tmp_path, {**RIGHT, "d": "one.safetensors"})
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
    folder = sharded(tmp_path, {**RIGHT, "a": listed_for})
    write_file(folder / "two.safetensors", random_tensors({"c": (2,), "a": shape}, seed=7))
    found = opened_both_ways(folder)
    expected = read_by_transformers(folder)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.read(name), value) for name, value in expected.items())
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
            {**RIGHT, "b": "two.safetensors"},
            "there: tensor 'b' is in one.safetensors, not in two.safetensors: read from there, as in transformers",
        ),
    ],
)
def test_tensors_that_the_index_does_not_list_as_they_are(tmp_path: Path, weight_map: Any, note: str) -> None:
    folder = sharded(tmp_path, weight_map)
    found = opened_both_ways(folder)
    expected = read_by_transformers(folder)
    assert found.tensors.keys() == expected.keys() == {"a", "b", "c"}
    assert all(torch.equal(found.read(name), value) for name, value in expected.items())
    assert found.notes == (note,)


def test_pickled_shards_are_read_as_transformers_does(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model-2.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-1.bin", "c": "pytorch_model-2.bin"}}))
    with pytest.raises(CheckpointError, match="'c' is not in pytorch_model-2"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "pytorch_model-2.bin", "b": "pytorch_model-1.bin"}}))
    found, expected = open_checkpoint(tmp_path), read_by_transformers(tmp_path, index.name)
    assert all(torch.equal(found.read(name), value) for name, value in expected.items())
    assert len(found.notes) == 1


@pytest.mark.parametrize("main", ["unet", "transformer"])
def test_the_hint_for_a_pipeline_names_the_folder_of_its_model(tmp_path: Path, main: str) -> None:
    for file in (f"{main}/diffusion_pytorch_model.safetensors", "vae/a.safetensors", "text_encoder/model.safetensors"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"a pipeline of diffusers .*{main}, text_encoder, vae") as caught:
        open_checkpoint(tmp_path)
    assert (caught.value.hint or "").endswith(f"{tmp_path}/{main}")


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path, RIGHT)
    content = (folder / "two.safetensors").read_bytes()
    (folder / "two.safetensors").write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=r"owner/model@abc/two\.safetensors.*cut short.*'c'"):
        open_checkpoint(folder, "owner/model@abc")


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    store = write_folder(tmp_path / "blobs", random_tensors({"a": (2,)}))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(store / "model.safetensors")
    assert set(open_checkpoint(tmp_path / "snapshot").tensors) == {"a"}


@pytest.mark.parametrize("decoded", [False, True])
def test_headers_alone_describe_the_same_tensors_as_the_files(tmp_path: Path, *, decoded: bool) -> None:
    folder = sharded(tmp_path, RIGHT)
    headers: dict[str, Any] = {}
    sizes = {}
    for file in ("one.safetensors", "two.safetensors"):
        content = (folder / file).read_bytes()
        length = int.from_bytes(content[:8], "little")
        headers[file] = json.loads(content[8 : 8 + length]) if decoded else content[: 8 + length]
        sizes[file] = len(content)
    index = (folder / "model.safetensors.index.json").read_bytes()
    remote = open_headers(headers, {"model_type": "x"}, "owner/model@abc", sizes=sizes, index=index)
    local = open_checkpoint(folder)
    assert remote.config == {"model_type": "x"}
    assert set(remote.tensors) == set(local.tensors)
    for name, info in remote.tensors.items():
        assert (info.spec, info.file, info.nbytes) == (
            local.tensors[name].spec,
            local.tensors[name].file,
            local.tensors[name].nbytes,
        )
    if not decoded:
        assert remote.tensors == local.tensors
    with pytest.raises(CheckpointError, match=r"owner/model@abc: tensor 'c' cannot be read: only the header"):
        remote.read("c")


@pytest.mark.parametrize("with_index", [False, True])
def test_a_second_copy_of_the_weights_is_ignored(tmp_path: Path, *, with_index: bool) -> None:
    folder = sharded(tmp_path, RIGHT)
    write_file(folder / "model.safetensors", random_tensors({"a": (2,), "b": (3,), "c": (2,)}, seed=5))
    headers = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    index = (folder / "model.safetensors.index.json").read_bytes() if with_index else None
    whole = open_headers(headers, {}, "owner/model", index=index)
    assert whole.tensors == open_checkpoint(folder).tensors
    assert whole.files == ("model.safetensors",)


def test_headers_that_are_not_in_the_index_are_ignored(tmp_path: Path) -> None:
    folder = sharded(tmp_path, RIGHT)
    headers = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    index = (folder / "model.safetensors.index.json").read_bytes()
    headers["model.fp16.safetensors"] = headers["two.safetensors"]
    assert open_headers(headers, {}, "owner/model", index=index).tensors == open_checkpoint(folder).tensors


def test_incomplete_or_contradictory_headers_are_refused() -> None:
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    with pytest.raises(CheckpointError, match="no index"):
        open_headers({"one.safetensors": header, "two.safetensors": header}, {}, "owner/model")
    index = json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).encode()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards missing: two\.safetensors"):
        open_headers({"one.safetensors": header}, {}, "owner/model", index=index)
    text = json.dumps(header).encode()
    raw = len(text).to_bytes(8, "little") + text
    with pytest.raises(CheckpointError, match="cut short"):
        open_headers({"model.safetensors": raw}, {}, "owner/model", sizes={"model.safetensors": len(raw) + 7})
    with pytest.raises(CheckpointError, match=r"the header is incomplete: \d+ of"):
        open_headers({"model.safetensors": raw[:-1]}, {}, "owner/model")
    with pytest.raises(CheckpointError, match="no tensor"):
        open_headers({"model.safetensors": {}}, {}, "owner/model")
