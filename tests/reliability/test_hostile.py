"""Malicious files: refused, without running their code or writing outside the work folder."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save

from tests.reliability.target_checks import everything
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]
WEIGHTS = "model.safetensors"


class Payload:
    """Object that creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def with_header(entries: dict[str, Any], values: bytes, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + values


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def overlapping(content: bytes) -> bytes:
    entries, values = header_of(content)
    names = [name for name in entries if name != "__metadata__"]
    same = [name for name in names if entries[name]["shape"] == entries[names[0]]["shape"]]
    assert len(same) > 1
    for name in same:
        entries[name]["data_offsets"] = entries[names[0]]["data_offsets"]
    return with_header(entries, values)


def huge_offsets(content: bytes) -> bytes:
    entries, values = header_of(content)
    name = next(name for name in entries if name != "__metadata__")
    begin, end = entries[name]["data_offsets"]
    entries[name]["data_offsets"] = [begin + 2**62, end + 2**62]
    return with_header(entries, values)


def huge_shape(content: bytes) -> bytes:
    entries, values = header_of(content)
    name = next(name for name in entries if name != "__metadata__")
    entries[name]["shape"] = [2**31, 2**31, 2**31]
    return with_header(entries, values)


def packed(content: dict[str, Any], size: int) -> bytes:
    """Return a `.bin` file whose pickle unpacks to `size` bytes more than needed."""
    stored, bomb = io.BytesIO(), io.BytesIO()
    torch.save(content, stored)
    with zipfile.ZipFile(stored) as archive, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as into:
        for name in archive.namelist():
            data = archive.read(name)
            into.writestr(name, data + bytes(size) if name.endswith("data.pkl") else data)
    return bomb.getvalue()


@pytest.fixture
def hostile(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, bytes | None]], str]:
    """Return a function that runs a stream with changed files in its last checkpoint, and returns the error message.

    None as the content of a file removes it.
    """

    def run(files: dict[str, bytes | None]) -> str:
        folder = tmp_path / "tower"
        shutil.copytree(stage.folder / "towers" / next(iter(stage.towers)), folder)
        for name, content in files.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content)
        source, target = repo_name("hostile"), repo_name("target")
        HfApi().create_repo(source)
        HfApi().upload_folder(repo_id=source, folder_path=folder)
        first = next(iter(stage.towers.items()))
        models = [{"model": first[1], "name": first[0]}, {"model": source, "name": "hostile"}]
        recipe = stage.write(tmp_path, stage.recipe(target, models=models, evaluate=None))
        monkeypatch.chdir(folder)
        before = everything(tmp_path)
        status, _, errors = hubmerge("run", recipe)
        assert status == 4, errors
        assert "Traceback" not in errors
        assert "internal error" not in errors
        assert source in errors
        assert not HfApi().repo_exists(target)
        assert everything(tmp_path) == before
        return errors

    return run


@pytest.fixture
def weights(stage: Stage) -> bytes:
    return (stage.folder / "towers" / next(iter(stage.towers)) / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (overlapping, "overlaps"),
        (huge_offsets, "hole"),
        (huge_shape, "bytes, expected"),
        (
            lambda content: with_header(header_of(content)[0], b"", length=2 << 30),
            "the header length is 2147483648 bytes",
        ),
        (lambda content: with_header(header_of(content)[0], b"", length=90_000_000), "the whole file has"),
    ],
    ids=["overlapping", "huge offsets", "huge shape", "header of 2 GB", "header longer than the file"],
)
def test_safetensors(
    hostile: Callable[..., str], weights: bytes, change: Callable[[bytes], bytes], expected: str
) -> None:
    message = hostile({WEIGHTS: change(weights)})
    assert expected in message
    assert WEIGHTS in message


@pytest.mark.parametrize("protocol", [None, 2, 5])
def test_pickles_with_code(hostile: Callable[..., str], tmp_path: Path, protocol: int | None) -> None:
    mark = tmp_path / "executed"
    content = {"weight": torch.zeros(2), "code": Payload(mark)}
    stored = io.BytesIO()
    if protocol is None:
        torch.save(content, stored)
    else:
        pickle.dump(content, stored, protocol)
    assert "pytorch_model.bin" in hostile({WEIGHTS: None, "pytorch_model.bin": stored.getvalue()})
    assert not mark.exists()


def test_compressed_bin_file(hostile: Callable[..., str], weights: bytes, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(weights)
    bomb = packed(load_file(tmp_path / WEIGHTS), 64 << 20)
    (tmp_path / WEIGHTS).unlink()
    assert len(bomb) < 4 << 20
    message = hostile({WEIGHTS: None, "pytorch_model.bin": bomb})
    assert "is compressed" in message


@pytest.mark.parametrize(
    "place",
    ["../outside.safetensors", "/etc/outside.safetensors", "a/../../outside.safetensors", "..\\outside.safetensors"],
)
def test_index_that_names_files_outside_the_folder(hostile: Callable[..., str], weights: bytes, place: str) -> None:
    names = [name for name in header_of(weights)[0] if name != "__metadata__"]
    index = {"weight_map": dict.fromkeys(names, place)}
    message = hostile({WEIGHTS: None, "model.safetensors.index.json": json.dumps(index).encode()})
    assert "outside.safetensors" in message
    assert "inside the folder" in message


@pytest.mark.parametrize(
    "config",
    [
        b'{"model_type": ' + b"[" * 100_000,
        b"[]",
        b"\xff\xfe",
        b'{"model_type": "clip_vision_model", "num_hidden_layers": 1e12}',
    ],
)
def test_malicious_config_of_the_base_model(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, config: bytes
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(stage.folder / "base", folder)
    (folder / "config.json").write_bytes(config)
    source, target = repo_name("base"), repo_name("target")
    HfApi().create_repo(source)
    HfApi().upload_folder(repo_id=source, folder_path=folder)
    recipe = stage.write(tmp_path, stage.recipe(target, base_model=source, evaluate=None))
    status, _, errors = hubmerge("run", recipe)
    assert status == 4, errors
    assert "Traceback" not in errors
    assert "internal error" not in errors
    assert not HfApi().repo_exists(target)


def test_code_of_a_base_model_is_neither_run_nor_copied(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    folder, mark = tmp_path / "base", tmp_path / "executed"
    shutil.copytree(stage.folder / "base", folder)
    config = {"model_type": "../../x", "architectures": ["os.system"], "auto_map": {"AutoModel": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    recipe = stage.write(tmp_path, stage.recipe(None, base_model=str(folder), evaluate=None))
    status, output, errors = hubmerge("run", recipe, "--out", tmp_path / "out")
    assert (status, errors) == (0, "")
    assert "has no class 'os.system'" in output
    assert not mark.exists()
    assert not (tmp_path / "out" / "evil.py").exists()


@pytest.mark.parametrize("key", ["num_hidden_layers", "decoder_layers", "num_experts", "depths", "num_labels"])
@pytest.mark.parametrize("place", ["vision_config", "top"])
def test_config_of_an_oversized_model(stage: Stage, hubmerge: Command, tmp_path: Path, place: str, key: str) -> None:
    """Refuse the config without building its model, which would take hours and all memory."""
    folder = tmp_path / "base"
    shutil.copytree(stage.folder / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    (config if place == "top" else config[place])[key] = [3, 2**40] if key == "depths" else 2**40
    (folder / "config.json").write_text(json.dumps(config))
    recipe = stage.write(tmp_path, stage.recipe(None, base_model=str(folder), evaluate=None))
    status, _, errors = hubmerge("run", recipe)
    assert status == 4, errors
    assert f"config.json: {key} = " in errors


def test_helpers_write_valid_files(weights: bytes) -> None:
    """Check that the helpers of these tests write a valid file if nothing is changed."""
    entries, values = header_of(weights)
    from safetensors.torch import load

    assert save(load(with_header(entries, values))) == save(load(weights))
