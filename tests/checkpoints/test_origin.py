"""Errors about a checkpoint have its place in the message and in their fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubmerge.checkpoints import Origin, open_checkpoint, open_headers
from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.errors import CheckpointError
from tests.checkpoints.files import random_tensors, write_folder

HUB = Origin("owner/model@0123456789ab", repo="owner/model", commit="0123456789abcdef" * 2 + "01234567")
HOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}


def test_an_error_about_a_file_on_the_hub_has_all_fields() -> None:
    with pytest.raises(CheckpointError) as refused:
        open_headers({"model.safetensors": HOLE}, {}, HUB)
    error = refused.value
    assert error.message.startswith("owner/model@0123456789ab/model.safetensors: tensor 'a' leaves a hole")
    assert (error.context.repo, error.context.commit) == (HUB.repo, HUB.commit)
    assert (error.context.file, error.context.tensor) == ("model.safetensors", "a")
    assert error.code == "checkpoint"


def test_an_error_about_a_local_file_has_its_path(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", random_tensors({"a": (2,)}))
    (folder / "model.safetensors").write_bytes(b"short")
    for open_it in (lambda: open_checkpoint(folder), lambda: SafetensorsReader(folder / "model.safetensors")):
        with pytest.raises(CheckpointError) as refused:
            open_it()
        assert refused.value.context.file == str(folder / "model.safetensors")
        assert refused.value.message.startswith(f"{folder / 'model.safetensors'}: the file has 5 bytes")
        assert refused.value.context.repo is None


def test_an_error_about_a_tensor_names_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_folder(tmp_path, random_tensors({"a": (2,)})), HUB)
    with pytest.raises(CheckpointError) as refused:
        checkpoint.read("b")
    assert refused.value.context.tensor == "b"
    assert refused.value.context.repo == "owner/model"
    assert refused.value.context.file is None
