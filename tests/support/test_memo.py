"""What transformers said of a config or a folder is asked once, and never where the question differs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints import check_loads, open_checkpoint
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.model_class.model_class import find_model_class, known_class
from hubmerge.errors import CheckpointError
from hubmerge.support import hashing, memo
from hubmerge.support.hashing import LARGE_BYTES, file_digest
from hubmerge.support.paths import user_cache_folder
from tests.checkpoints.models import save as save_model


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def answers() -> list[Path]:
    return sorted(user_cache_folder("answers").glob("*"))


def test_an_answer_belongs_to_its_kind_and_question() -> None:
    assert memo.get("kind", b"question", int) is None
    memo.put("kind", b"question", {"a": [1, 2]})
    assert memo.get("kind", b"question", dict) == {"a": [1, 2]}
    assert memo.get("other", b"question", int) is None
    assert memo.get("kind", b"another question", int) is None
    assert len(answers()) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff", b"{}"])
def test_a_damaged_answer_is_none(damage: bytes) -> None:
    memo.put("kind", b"question", 1)
    answers()[0].write_bytes(damage)
    assert memo.get("kind", b"question", int) is None
    memo.put("kind", b"question", 2)
    assert memo.get("kind", b"question", int) == 2


def test_without_a_cache_everything_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    memo.put("kind", b"question", 1)
    assert memo.get("kind", b"question", int) is None


def test_another_version_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    memo.put("kind", b"question", 1)
    monkeypatch.setattr("hubmerge.support.memo._versions", lambda: "another")
    assert memo.get("kind", b"question", int) is None


@pytest.mark.parametrize("family", ["CLIPModel", "BertForMaskedLM", "GPT2LMHeadModel", "MixtralForCausalLM"])
def test_a_class_is_remembered_whole(family: str, tmp_path: Path) -> None:
    with open_checkpoint(save_model(family, tmp_path / family), family) as checkpoint:
        config, names = checkpoint.config, list(checkpoint.tensors)
    assert known_class(config, names) is None
    asked = find_model_class(config, names)
    assert known_class(config, names) == asked
    assert find_model_class(config, names[::-1]) == asked
    assert known_class(config, names[1:]) is None
    assert known_class({**config, "hidden_size": 8, "n_embd": 8, "projection_dim": 8}, names) is None


@pytest.mark.parametrize("damage", ['{"answer": {}}', '{"answer": {"name": "x", "shapes": 3}}', '{"answer": [1]}'])
def test_a_damaged_class_is_asked_again(damage: str, tmp_path: Path) -> None:
    with open_checkpoint(save_model("CLIPModel", tmp_path / "model"), "it") as checkpoint:
        asked = find_model_class(checkpoint.config, checkpoint.tensors)
        for file in answers():
            file.write_text(damage)
        assert find_model_class(checkpoint.config, checkpoint.tensors) == asked


def test_what_cannot_be_built_is_refused_every_time() -> None:
    for _ in range(2):
        found = find_model_class({"model_type": "clip", "vision_config": {"num_attention_heads": 7}}, ["a"])
        assert isinstance(found, UnknownClass)
        assert "cannot build 'clip' from its config" in found.reason
    assert not answers()


def loading(folder: Path) -> tuple[str, ...]:
    with open_checkpoint(folder, "it") as checkpoint:
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
        return check_loads(checkpoint.config, shapes, shapes, "it")


@pytest.mark.parametrize("family", ["CLIPModel", "BertForMaskedLM"])
def test_how_a_model_loads_is_asked_once(family: str, tmp_path: Path) -> None:
    folder = save_model(family, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": [family.replace("ForMaskedLM", "Model")]})
    )
    asked = loading(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    program = (
        "import sys; from pathlib import Path; from tests.support.test_memo import loading;"
        "print(*loading(Path(sys.argv[1])), 'transformers.modeling_utils' in sys.modules, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout == "\n".join([*asked, "False", ""])


@pytest.mark.parametrize("change", ["config", "shape", "layer"])
def test_what_does_not_load_is_refused_every_time(change: str, tmp_path: Path) -> None:
    folder = save_model("CLIPModel", tmp_path / "model")
    assert loading(folder) == ()
    tensors = load_file(folder / "model.safetensors")
    name = "vision_model.embeddings.class_embedding"
    if change == "config":
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["hidden_size"] *= 2
        (folder / "config.json").write_text(json.dumps(config))
    elif change == "shape":
        tensors[name] = tensors[name].repeat(2)
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"^it: config\.json"):
            loading(folder)


@pytest.mark.parametrize("damage", ['{"answer": {}}', '{"answer": {"missing": []}}', '{"answer": [1]}'])
def test_a_damaged_answer_on_loading_is_asked_again(damage: str, tmp_path: Path) -> None:
    folder = save_model("CLIPModel", tmp_path / "model")
    assert loading(folder) == ()
    for file in answers():
        file.write_text(damage)
    assert loading(folder) == ()


def settled(path: Path, content: bytes) -> Path:
    """A large file that was written long ago, as far as its times tell."""
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def test_a_large_file_that_was_not_stamp_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file, small = settled(tmp_path / "file", bytes(LARGE_BYTES)), settled(tmp_path / "small", b"small")
    digests = [file_digest(file), file_digest(small)]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in (file, small)]
    assert len(answers()) == 1
    hashing._content_digest.cache_clear()
    opened, real = [], Path.open

    def open_and_tell(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", open_and_tell)
    assert [file_digest(file), file_digest(small)] == digests
    assert file not in opened
    assert small in opened


def test_a_file_that_claims_the_same_time_and_size_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    before = file_digest(file)
    settled(file, b"1" * LARGE_BYTES)
    assert file_digest(file) == hashlib.sha256(b"1" * LARGE_BYTES).hexdigest() != before


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(LARGE_BYTES))
    file_digest(tmp_path / "file")
    assert not answers()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    real = hashing._stamp
    seen = iter([real(file), (0, 0, LARGE_BYTES, 1, 1)])
    monkeypatch.setattr(hashing, "_stamp", lambda path: next(seen))
    file_digest(file)
    assert not answers()


@pytest.mark.parametrize("answer", [None, 3, "short"])
def test_a_damaged_digest_is_taken_anew(answer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubmerge.support.hashing.SETTLING_NS", 0)
    file = settled(tmp_path / "file", bytes(LARGE_BYTES))
    before = file_digest(file)
    answers()[0].write_text(json.dumps({"answer": answer}))
    hashing._content_digest.cache_clear()
    assert file_digest(file) == before
