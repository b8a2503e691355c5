"""The files of a repo or folder are selected: the weights in the index, and the auxiliary files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.checkpoints.formats.layout import find_weights
from hubmerge.checkpoints.formats.select_files import select_auxiliary_files, select_model_files
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import CheckpointError
from hubmerge.stream.sources import Source, files_of
from merge_recipes import ModelReference
from tests.checkpoints.families import base, save, tuned
from tests.checkpoints.merging import merge
from tests.stream.test_sources import FAMILY, assert_same, push, run, values

Names = Callable[..., str]

AUXILIARY = {
    "additional_chat_templates/rag.jinja": "{{ documents }}",
    "bpe.codes": "a b 1",
    "emoji.dict": ":) smile",
    "tokenizer.model.v3": "\0\1",
    "source.spm": "\0\2",
    "prophetnet.tokenizer": "a",
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense/", "type": "sentence_transformers.models.Dense"},
            {"idx": 3, "name": "3", "path": "../outside", "type": "sentence_transformers.models.Normalize"},
        ]
    ),
    "1_Pooling/config.json": '{"pooling_mode_mean_tokens": true}',
    "2_Dense/config.json": '{"in_features": 2}',
    "2_Dense/model.safetensors": "weights of its own",
}
OTHERS = {
    "2_Dense/pytorch_model.bin": "the same weights again",
    "2_Dense/modeling.py": "code",
    "additional_chat_templates/make.py": "code",
    "additional_chat_templates/deeper.json": "{}",
    "configuration.py": "code",
    "LICENSE.py": "code",
    "checkpoint-10/model.safetensors": "another model",
    "onnx/config.json": "{}",
}


def read_nothing(name: str) -> bytes:
    raise AssertionError(name)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def with_odd_shards(folder: Path, *names: str) -> Path:
    """Spread the model in a folder over shards with unusual names."""
    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {tensor: names[index % len(names)] for index, tensor in enumerate(sorted(whole))}
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        save_file({tensor: whole[tensor] for tensor, place in places.items() if place == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


@pytest.mark.parametrize("where", ["hub", "local", "subfolder"])
def test_auxiliary_files_of_the_base_model_are_copied(
    tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    start, checkpoint = save(base(FAMILY), tmp_path / "base"), save(tuned(FAMILY, 1), tmp_path / "tuned")
    write(start, AUXILIARY | OTHERS)
    base_model = str(start)
    if where != "local":
        base_model = repo_name("base")
        push(base_model, start, "here" if where == "subfolder" else None)
        base_model += "/here" if where == "subfolder" else ""
    status, out = run(tmp_path, base_model, [str(checkpoint)])
    assert status == 0, capsys.readouterr().err
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {name: (out / name).read_text() for name in AUXILIARY} == AUXILIARY
    assert not found & set(OTHERS)
    assert_same(values(out), merge(tmp_path / "again", start, [checkpoint]).values())


def test_the_pickle_of_a_module_is_selected_if_it_has_no_safetensors() -> None:
    modules = json.dumps([{"path": "2_Dense"}]).encode()
    names = {"modules.json", "2_Dense/pytorch_model.bin", "2_Dense/deeper/model.safetensors"}
    assert select_auxiliary_files(names, lambda _: modules) == names


@pytest.mark.parametrize("text", ["", "[", "{}", '["2_Dense"]', '[{"path": 3}]', '[{"path": "/2_Dense"}]', "[" * 9999])
def test_an_invalid_list_of_modules_counts_as_empty(text: str) -> None:
    names = {"modules.json", "2_Dense/config.json"}
    assert select_auxiliary_files(names, lambda _: text.encode()) == {"modules.json"}


@pytest.mark.parametrize("names", [("weights-0.safetensors", "weights-1.safetensors"), ("in/a.safetensors",)])
@pytest.mark.parametrize("where", ["hub", "subfolder", "local"])
@pytest.mark.parametrize("fetching", ["cache", "ranges"])
def test_the_index_decides_which_files_are_read(
    tmp_path: Path,
    repo_name: Names,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    where: str,
    fetching: str,
) -> None:
    start, checkpoint = save(base(FAMILY), tmp_path / "base"), save(tuned(FAMILY, 1), tmp_path / "tuned")
    expected = merge(tmp_path / "again", start, [checkpoint]).values()
    with_odd_shards(checkpoint, *names)
    save_file({"stale": torch.ones(3)}, checkpoint / "model-00001-of-00099.safetensors")
    model = str(checkpoint)
    if where != "local":
        model = repo_name("tuned")
        push(model, checkpoint, "sub" if where == "subfolder" else None)
        model += "/sub" if where == "subfolder" else ""
    status, out = run(tmp_path, str(start), [model], fetch=fetching)
    assert status == 0, capsys.readouterr().err
    assert_same(values(out), expected)


def test_only_files_in_the_index_are_fetched(tmp_path: Path, repo_name: Names) -> None:
    checkpoint = with_odd_shards(save(tuned(FAMILY, 1), tmp_path / "tuned"), "a.safetensors", "b.safetensors")
    save_file({"stale": torch.ones(3)}, checkpoint / "model-00001-of-00099.safetensors")
    repo = repo_name("tuned")
    commit = push(repo, checkpoint)
    expected = ["a.safetensors", "b.safetensors", "config.json", "model.safetensors.index.json"]
    for source in (Source(ModelReference(repo), commit), Source(ModelReference(str(checkpoint)), "")):
        assert [file.path for file in files_of(source)] == expected


def test_missing_shards_are_refused(tmp_path: Path, repo_name: Names, capsys: pytest.CaptureFixture[str]) -> None:
    start = save(base(FAMILY), tmp_path / "base")
    checkpoint = with_odd_shards(save(tuned(FAMILY, 1), tmp_path / "tuned"), "a.safetensors", "b.safetensors")
    (checkpoint / "b.safetensors").unlink()
    repo = repo_name("tuned")
    push(repo, checkpoint)
    status, _ = run(tmp_path, str(start), [repo], "plan")
    assert status == 4
    assert "1 of 2 shards missing: b.safetensors" in capsys.readouterr().out


def test_an_index_with_a_file_outside_the_repo_is_refused() -> None:
    index = json.dumps({"weight_map": {"a": "../../secret.safetensors"}}).encode()
    with pytest.raises(CheckpointError, match=r"there/model\.safetensors\.index\.json: tensor 'a' is listed for"):
        select_model_files(
            {"model.safetensors.index.json", "../../secret.safetensors"}, lambda _: index, Origin("there")
        )


def test_a_single_file_is_preferred_to_an_index() -> None:
    names = {"model.safetensors", "model.safetensors.index.json", "config.json", "pytorch_model.bin"}
    assert select_model_files(names, read_nothing, Origin("there")) == {"model.safetensors", "config.json"}


@pytest.mark.parametrize(
    ("file", "expected", "hint"),
    [
        (
            "lora.safetensors",
            "found lora.safetensors, config.json",
            "load lora.safetensors with the library that wrote it",
        ),
        ("tf_model.h5", "found tf_model.h5, config.json", "load tf_model.h5 with the library that wrote it"),
        ("model.fp16-00001-of-00001.safetensors", "found model.fp16-00001-of", "is a shard, and its index is missing"),
        ("unet/diffusion_pytorch_model.bin", "found unet/diffusion_pytorch", "append /unet to the model's name"),
        ("model-00001-of-00001.safetensors", "found model-00001-of", "is a shard, and its index is missing"),
        ("model-q4.gguf", "found model-q4.gguf", "GGUF files are usually quantized"),
        ("towers/model.safetensors", "found towers/model.safetensors", "append /towers to the model's name"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_weights_with_other_names_are_refused_with_a_hint(
    tmp_path: Path,
    repo_name: Names,
    capsys: pytest.CaptureFixture[str],
    file: str,
    expected: str,
    hint: str,
    command: str,
) -> None:
    start, checkpoint = save(base(FAMILY), tmp_path / "base"), save(tuned(FAMILY, 1), tmp_path / "tuned")
    (checkpoint / file).parent.mkdir(exist_ok=True)
    (checkpoint / "model.safetensors").rename(checkpoint / file)
    repo = repo_name("tuned")
    push(repo, checkpoint)
    status, _ = run(tmp_path, str(start), [repo], command)
    assert status == 4
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines() if line.startswith("{")]
    said = "".join(f"{event['message']} {event['hint']}" for event in events if event["event"] == "error")
    said = said or " ".join(captured.err.split())
    assert expected in said
    assert hint in said


BOTH = {"model.fp16.safetensors", "model.bf16.safetensors"}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ({"pytorch_model.bin", "open_clip_model.safetensors"}, "pytorch_model.bin"),
        ({"open_clip_pytorch_model.bin", "open_clip_model.safetensors"}, "open_clip_model.safetensors"),
        ({"diffusion_pytorch_model.bin", "model.fp16.safetensors"}, "diffusion_pytorch_model.bin"),
        (
            {"diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"},
            "diffusion_pytorch_model.safetensors",
        ),
        ({"diffusion_pytorch_model.non_ema.bin", "diffusion_pytorch_model.bin"}, "diffusion_pytorch_model.bin"),
        ({"model.safetensors", "consolidated.safetensors", "params.json"}, "model.safetensors"),
        ({"consolidated.00.pth", "params.json"}, "consolidated.00.pth"),
        ({"consolidated.00.safetensors", "consolidated.00.pth"}, "consolidated.00.safetensors"),
        (BOTH, "model.fp16.safetensors"),
        ({*BOTH, "model.fp32.safetensors"}, "model.fp32.safetensors"),
        ({"model.fp16.safetensors", "pytorch_model.fp16.bin"}, "model.fp16.safetensors"),
        ({"pytorch_model.ema.bin"}, "pytorch_model.ema.bin"),
    ],
)
def test_one_file_is_chosen_among_those_of_several_libraries(names: set[str], chosen: str) -> None:
    assert select_model_files(names, read_nothing, Origin("there")) - {"params.json"} == {chosen}


@pytest.mark.parametrize(
    ("names", "message", "hint"),
    [
        (
            {"model.ema.safetensors", "model.non_ema.safetensors"},
            r"there: 2 variants of the weights \(ema, non_ema\) and no model\.safetensors",
            "copy the files of one variant into a folder, model.ema.safetensors for example, and name that folder",
        ),
        (
            {"consolidated.00.pth", "consolidated.01.pth", "params.json"},
            r"there: 2 files with a slice of every tensor each \(consolidated\.00\.pth, .*\), for 2 GPUs",
            "name a version of this model that transformers saved, or join the slices",
        ),
        (
            {"consolidated-00001-of-00003.safetensors", "consolidated-00002-of-00003.safetensors"},
            "no weights: expected model.safetensors",
            "fetch the index too",
        ),
        (
            {"config.json", "onnx", "onnx/model.onnx", "docs"},
            r"found onnx/model\.onnx, config\.json, docs\n",
            "load onnx/model.onnx with the library that wrote it",
        ),
    ],
)
def test_files_of_which_none_can_be_chosen_are_refused(names: set[str], message: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        find_weights(names, Origin("there"))
    assert caught.value.hint is not None
    assert hint in caught.value.hint
