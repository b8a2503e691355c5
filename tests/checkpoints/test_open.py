"""Checkpoints are opened from folders and from headers, and invalid ones are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hubmerge.checkpoints import Origin, find_weights, open_checkpoint, open_headers
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import SHARDS, random_tensors, sharded, write_file, write_folder
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
    folder = sharded(tmp_path, SHARDS)
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
    folder = sharded(tmp_path, SHARDS)
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
    folder = sharded(tmp_path, SHARDS)
    write_file(folder / "model.safetensors", random_tensors({"a": (2,), "b": (3,), "c": (2,)}, seed=5))
    headers = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    index = (folder / "model.safetensors.index.json").read_bytes() if with_index else None
    whole = open_headers(headers, {}, "owner/model", index=index)
    assert whole.tensors == open_checkpoint(folder).tensors
    assert whole.files == ("model.safetensors",)


def test_headers_that_are_not_in_the_index_are_ignored(tmp_path: Path) -> None:
    folder = sharded(tmp_path, SHARDS)
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
