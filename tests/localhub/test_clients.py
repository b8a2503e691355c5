"""Tests with unmodified client libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import CommitInfo, HfApi, HfFileSystem, ModelCard, ModelCardData, get_safetensors_metadata

from hubmerge.localhub import LocalHub

Names = Callable[..., str]
HF = Path(sys.executable).with_name("hf")


def test_transformers_pushes_and_loads_models(repo_name: Names, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    model = BertModel(config)
    name = repo_name("bert")
    commit = model.push_to_hub(name, max_shard_size="8KB", private=True)
    files = HfApi().list_repo_files(name)
    assert "model.safetensors.index.json" in files
    again = BertModel.from_pretrained(name, revision=commit.oid, cache_dir=tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    info = HfApi().model_info(name)
    assert info.private
    assert info.safetensors is not None
    assert info.safetensors.total == sum(value.numel() for value in model.state_dict().values())
    metadata = get_safetensors_metadata(name)
    assert metadata.sharded
    assert set(metadata.weight_map) == set(model.state_dict())


def test_datasets_pushes_and_loads_datasets(repo_name: Names, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict, load_dataset

    name = repo_name("digits")
    rows: dict[str, list[Any]] = {"label": [0, 1, 2, 3], "text": ["null", "eins", "zwei", "drei"]}
    made = DatasetDict(
        {"train": Dataset.from_dict(rows), "test": Dataset.from_dict({k: v[:2] for k, v in rows.items()})}
    )
    made.push_to_hub(name)
    made.push_to_hub(name, config_name="other")
    loaded = load_dataset(name, cache_dir=str(tmp_path))
    assert loaded["train"].to_dict() == rows
    assert loaded["test"].num_rows == 2
    sha = HfApi().dataset_info(name).sha
    other = load_dataset(name, "other", split="train", revision=sha, cache_dir=str(tmp_path))
    assert other["text"] == rows["text"]
    stream = load_dataset(name, split="train", streaming=True)
    assert [row["label"] for row in stream] == rows["label"]


def test_image_folders_load_as_datasets(repo_name: Names, tmp_path: Path) -> None:
    from datasets import load_dataset
    from PIL import Image

    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "up" / split / label).mkdir(parents=True)
            Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "up" / split / label / "1.png")
    name = HfApi().create_repo(repo_name("pets"), repo_type="dataset").repo_id
    HfApi().upload_folder(repo_id=name, repo_type="dataset", folder_path=tmp_path / "up")
    loaded = load_dataset(name, split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["label"].names == ["cat", "dog"]
    assert loaded[0]["image"].size == (4, 4)


def test_the_file_system_reads_and_writes_files(repo_name: Names) -> None:
    name = HfApi().create_repo(repo_name()).repo_id
    system = HfFileSystem()
    with system.open(f"{name}/data/notes.txt", "w") as file:
        file.write("0123456789")
    with system.open(f"{name}/data/block.bin", "wb") as file:
        file.write(bytes(range(256)) * 1000)
    assert system.ls(f"{name}/data", detail=False) == [f"{name}/data/block.bin", f"{name}/data/notes.txt"]
    with system.open(f"{name}/data/block.bin", "rb", block_size=1000) as file:
        file.seek(70_000)
        assert file.read(4) == bytes([112, 113, 114, 115])
    assert system.glob(f"{name}/**/*.txt") == [f"{name}/data/notes.txt"]
    assert system.cat_file(f"{name}/data/notes.txt", start=2, end=5) == b"234"
    system.rm(f"{name}/data/notes.txt")
    assert not system.exists(f"{name}/data/notes.txt")


def test_cards_are_pushed_and_loaded(repo_name: Names) -> None:
    name = HfApi().create_repo(repo_name()).repo_id
    data = ModelCardData(license="mit", base_model=["local/base"], tags=["merge"])
    ModelCard.from_template(data, model_id=name).push_to_hub(name)
    assert ModelCard.load(name).data.license == "mit"
    proposed = ModelCard.from_template(data, model_description="More").push_to_hub(name, create_pr=True)
    assert isinstance(proposed, CommitInfo)
    assert proposed.pr_revision == "refs/pr/1"


def hf(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [HF, *arguments], cwd=cwd, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_hf_command_uploads_and_downloads(local_hub: LocalHub, repo_name: Names, tmp_path: Path) -> None:
    name = repo_name("cli")
    assert "local" in hf("auth", "whoami", cwd=tmp_path)
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "weights.bin").write_bytes(b"\x00" * 1000)
    (tmp_path / "up" / "notes.txt").write_text("hello")
    hf("repos", "create", name, cwd=tmp_path)
    hf("upload", name, "up", ".", "--commit-message", "From the command line", cwd=tmp_path)
    hf("repos", "tag", "create", name, "v1", cwd=tmp_path)
    hf("download", name, "--revision", "v1", "--local-dir", "down", cwd=tmp_path)
    assert (tmp_path / "down" / "weights.bin").read_bytes() == b"\x00" * 1000
    assert (tmp_path / "down" / "notes.txt").read_text() == "hello"
    assert name in hf("models", "ls", "--quiet", "--author", "local", "--search", name.partition("/")[2], cwd=tmp_path)
    assert local_hub.endpoint == HfApi().endpoint
