"""Invalid input of users: a clear message, the right exit status, nothing published."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from tests.conftest import READER_TOKEN, STRANGER_TOKEN
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


@pytest.fixture
def refused(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> Callable[[dict[str, Any], int], str]:
    """Return a function that runs a changed recipe, checks exit status and target, and returns the message."""

    def run(changes: dict[str, Any], status: int) -> str:
        repo = repo_name("target")
        found, output, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo, **changes)), "--quiet")
        assert found == status, errors
        assert output == ""
        assert errors.startswith("hubmerge: ")
        assert "Traceback" not in errors
        assert not HfApi().repo_exists(repo)
        return errors

    return run


@pytest.fixture
def tower(stage: Stage, tmp_path: Path, repo_name: Names) -> Callable[..., str]:
    """Return a function that pushes a changed copy of the first tower: `tower(lambda weights: ...)` gives its repo."""

    def push(change: Callable[[dict[str, torch.Tensor]], None] | None = None, **files: bytes) -> str:
        folder = tmp_path / "tower"
        shutil.copytree(stage.folder / "towers" / next(iter(stage.towers)), folder)
        if change is not None:
            weights = load_file(folder / "model.safetensors")
            change(weights)
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        repo = repo_name("tower")
        HfApi().create_repo(repo)
        HfApi().upload_folder(repo_id=repo, folder_path=folder)
        return repo

    return push


def stream(stage: Stage, broken: str) -> dict[str, Any]:
    first, second, _ = stage.towers.items()
    models = [{"model": model, "name": name} for name, model in (first, second)]
    return {"models": [*models, {"model": broken, "name": "broken"}], "evaluate": None}


def test_missing_repo(stage: Stage, refused: Callable[..., str]) -> None:
    message = refused(stream(stage, "local/nowhere"), 3)
    assert "local/nowhere" in message
    assert "no repo of this name" in message


def test_check_reports_missing_local_folders(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    references = ["./here", "./models/clock", "./here+./lora", "./" + "x" * 300]
    changes: dict[str, Any] = {"models": [{"model": model, "name": f"e{i}"} for i, model in enumerate(references)]}
    task = {"name": "e0", "kind": "zero-shot-image-classification", "dataset": {"path": "./rows"}}
    recipe = stage.recipe(None, base_model="~/no-such-base", evaluate={"tasks": [task]}, **changes)
    path = stage.write(tmp_path, recipe)
    lines = path.read_text().splitlines()
    status, output, errors = hubmerge("check", path)
    assert (status, output) == (2, "")
    for key, written, folder in (
        ("base_model", "~/no-such-base", Path("~/no-such-base").expanduser()),
        ("models[1].model", "./models/clock", tmp_path / "models" / "clock"),
        ("models[2].model", "./here+./lora", tmp_path / "lora"),
        ("models[3].model", references[3], tmp_path / references[3]),
        ("evaluate.tasks[0].dataset.path", "./rows", tmp_path / "rows"),
    ):
        line = next(number for number, text in enumerate(lines, start=1) if text.endswith(f" {written}"))
        column = lines[line - 1].index(written) + 1
        assert f"{path}:{line}:{column}: {key}: folder {folder} does not exist\n" in errors
    assert errors.count(" does not exist\n") == 5
    assert "hint: a local model is a folder with config.json and weights" in errors
    (tmp_path / "models" / "clock").mkdir(parents=True)
    (tmp_path / "lora").mkdir()
    changes["models"].pop()
    assert hubmerge("check", stage.write(tmp_path, stage.recipe(None, evaluate=None, **changes)))[0] == 0


def test_missing_revision(stage: Stage, refused: Callable[..., str]) -> None:
    message = refused(stream(stage, f"{stage.base}@v9"), 3)
    assert "v9" in message
    assert "revision" in message


def test_gated_repo(
    stage: Stage, refused: Callable[..., str], tower: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tower()
    HfApi().update_repo_settings(repo, gated="manual")
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    message = refused(stream(stage, repo), 3)
    assert "gated" in message
    assert repo in message


def test_read_only_token(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", READER_TOKEN)
    message = refused({}, 3)
    assert "this token is read-only" in message
    assert READER_TOKEN not in message


def test_missing_model_without_a_token(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    recipe = stage.recipe(None, **stream(stage, "local/nowhere"))
    status, _, errors = hubmerge("plan", stage.write(tmp_path, recipe), "--quiet")
    assert status == 3
    assert "local/nowhere" in errors
    assert "without an access token" in errors


def test_no_permission_for_the_namespace(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    message = refused({"evaluate": None}, 3)
    assert "no permission" in message
    assert STRANGER_TOKEN not in message


def test_missing_dataset(stage: Stage, refused: Callable[..., str]) -> None:
    message = refused({"evaluate": {"tasks": [task(stage, path="local/no-data")]}}, 3)
    assert "local/no-data" in message


def test_missing_column(stage: Stage, refused: Callable[..., str]) -> None:
    message = refused({"evaluate": {"tasks": [task(stage, image="photo")]}}, 2)
    assert "photo" in message
    assert "label" in message


def test_missing_split(stage: Stage, refused: Callable[..., str]) -> None:
    assert "validation" in refused({"evaluate": {"tasks": [task(stage, split="validation")]}}, 3)


def test_wrong_number_of_class_names(stage: Stage, refused: Callable[..., str]) -> None:
    message = refused({"evaluate": {"tasks": [{**task(stage), "class_names": ["one", "two"]}]}}, 2)
    assert "class" in message


def test_missing_tensor(stage: Stage, refused: Callable[..., str], tower: Callable[..., str]) -> None:
    name = "encoder.layers.1.mlp.fc1.weight"
    repo = tower(lambda weights: weights.pop(next(key for key in weights if key.endswith(name))))
    message = refused(stream(stage, repo), 4)
    assert name in message
    assert repo in message


def test_extra_tensor(stage: Stage, refused: Callable[..., str], tower: Callable[..., str]) -> None:
    repo = tower(lambda weights: weights.update({"classifier.weight": torch.zeros(3, 4)}))
    assert "classifier.weight" in refused(stream(stage, repo), 4)


def test_other_shape(stage: Stage, refused: Callable[..., str], tower: Callable[..., str]) -> None:
    def widen(weights: dict[str, torch.Tensor]) -> None:
        key = next(key for key in weights if key.endswith("mlp.fc1.weight"))
        weights[key] = torch.zeros(7, 5)

    message = refused(stream(stage, tower(widen)), 4)
    assert "7 x 5" in message
    assert "fc1.weight" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_values(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, tower: Callable[..., str], value: float
) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights[next(key for key in weights if key.endswith("mlp.fc2.bias"))][3] = value

    repo, broken = repo_name("target"), tower(poison)
    recipe = stage.write(tmp_path, stage.recipe(repo, **stream(stage, broken)))
    status, _, errors = hubmerge("run", recipe, "--quiet")
    assert status == 4
    assert broken in errors
    assert "fc2.bias" in errors
    # The steps before the broken checkpoint stay published; nothing follows them.
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01", "step-02"]


def test_truncated_safetensors(stage: Stage, refused: Callable[..., str], tower: Callable[..., str]) -> None:
    whole = (stage.folder / "towers" / next(iter(stage.towers)) / "model.safetensors").read_bytes()
    assert "model.safetensors" in refused(stream(stage, tower(model__safetensors=whole[:-100])), 4)


def test_corrupt_safetensors(stage: Stage, refused: Callable[..., str], tower: Callable[..., str]) -> None:
    whole = (stage.folder / "towers" / next(iter(stage.towers)) / "model.safetensors").read_bytes()
    broken = whole[:40] + b"\xff\xfe" + whole[42:]
    assert "header" in refused(stream(stage, tower(model__safetensors=broken)), 4)


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_pickle_with_code(stage: Stage, refused: Callable[..., str], tmp_path: Path, repo_name: Names) -> None:
    folder, mark = tmp_path / "pickle", tmp_path / "executed"
    folder.mkdir()
    shutil.copy(stage.folder / "towers" / next(iter(stage.towers)) / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Payload(str(mark))}))
    torch.save({"weight": Payload(str(mark))}, folder / "pytorch_model.bin")
    repo = repo_name("pickle")
    HfApi().create_repo(repo)
    HfApi().upload_folder(repo_id=repo, folder_path=folder)
    assert "pytorch_model.bin" in refused(stream(stage, repo), 4)
    assert not mark.exists()


def test_base_model_as_an_entry(stage: Stage, refused: Callable[..., str]) -> None:
    assert "base" in refused(stream(stage, stage.base), 2)


def test_same_checkpoint_twice_is_a_warning(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    first = next(iter(stage.towers.values()))
    models = [{"model": first, "name": "one"}, {"model": first, "name": "two"}]
    status, output, _ = hubmerge("check", stage.write(tmp_path, stage.recipe(None, models=models, evaluate=None)))
    assert status == 0
    assert "twice" in output


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"models": []}, "models"),
        ({"merge_method": "opmc"}, "did you mean opcm"),
        ({"parameters": {"aplha": 0.5}}, "did you mean alpha"),
        ({"parameters": {"alpha": 1.5}}, "alpha"),
    ],
)
def test_recipe_errors(refused: Callable[..., str], changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(changes, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is made with a mount, which only root may do")
def test_full_disk(stage: Stage, tmp_path: Path, repo_name: Names) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this machine allows no mounts")
    try:
        repo = repo_name("target")
        recipe = stage.write(tmp_path, stage.recipe(repo, evaluate=None))
        command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--work-dir", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 5, done.stderr
        assert str(disk) in done.stderr
        assert "Traceback" not in done.stderr
        assert not HfApi().repo_exists(repo)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_invalid_recipe_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("merge_method: opcm\nmodels: !!python/object:os.system {}\n")
    command = [sys.executable, "-m", "hubmerge", "run", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "recipe.yaml:2" in done.stderr
    assert "Traceback" not in done.stderr


def task(stage: Stage, **dataset: Any) -> dict[str, Any]:
    name = next(iter(stage.towers))
    return {
        "name": name,
        "kind": "zero-shot-image-classification",
        "dataset": {"path": stage.datasets[name], "max_examples": 8, **dataset},
    }
