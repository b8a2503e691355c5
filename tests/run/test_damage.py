"""Damaged files of the work folder, of the caches and of the state branch: set aside, made again, never used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.api.merging import run
from hubmerge.evaluation.cache import cached_file, is_cached
from hubmerge.run.kept_states import kept_state
from hubmerge.run.model_folder import is_kept_model
from hubmerge.stream.work_files import read_work_lock, read_work_report
from hubmerge.support.hashing import file_digest
from hubmerge.support.names import STATE_BRANCH
from hubmerge.support.workspace import Workspace
from tests.stage import Stage

Damage = Callable[[Path], None]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def delete(path: Path) -> None:
    path.unlink()


def replace_by_foreign(path: Path) -> None:
    path.write_bytes(b"\x89PNG something else\xff")


def replace_by_odd_json(path: Path) -> None:
    path.write_text("[" * 2000 + "]" * 2000)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def replace_by_broken_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


DAMAGES: list[Damage] = [
    flip,
    truncate,
    empty,
    delete,
    replace_by_foreign,
    replace_by_odd_json,
    replace_by_folder,
    replace_by_broken_link,
]


@dataclass(frozen=True)
class Kept:
    """Recipe of three steps, the work folder after the second, and the weights of an undisturbed run."""

    recipe: Path
    work: Path
    chain: str
    expected: dict[str, str]


def merge(recipe: Path, work: Path, out: Path) -> dict[str, str]:
    """Merge a recipe and return the digests of the weights."""
    run(recipe, work_dir=work, out=out, progress=None).finish()
    return {path.name: file_digest(path) for path in out.glob("*.safetensors")}


@pytest.fixture(scope="module")
def kept(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    two = stage.recipe(None, entries=tuple(stage.towers)[:2], evaluate=None)
    recipe = stage.write(folder, two)
    merge(recipe, folder / "work", folder / "out")
    stage.write(folder, stage.recipe(None, evaluate=None))
    chain = json.loads(next(folder.glob("work/*/states/*/state.json")).read_text())["chain"]
    return Kept(recipe, folder / "work", chain, merge(recipe, folder / "other", folder / "other-out"))


@pytest.fixture
def copied(kept: Kept, tmp_path: Path) -> Workspace:
    """Copy the work folder."""
    shutil.copytree(kept.work, tmp_path / "work")
    return Workspace(next((tmp_path / "work").iterdir()))


def in_state(workspace: Workspace, name: str) -> Path:
    (state,) = (path for path in workspace.states.iterdir() if path.is_dir())
    return state.with_name(f"{state.name}.sha256") if name == "sha256" else state / name


STATE_FILES = ["state.json", "figures.json", "accumulated.safetensors", "parts.safetensors", "sha256"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", STATE_FILES)
def test_a_damaged_state_is_set_aside(
    kept: Kept, copied: Workspace, caplog: pytest.LogCaptureFixture, damage: Damage, name: str
) -> None:
    folder = copied.state_folder(kept.chain)
    good = kept_state(folder, kept.chain)
    assert good is not None
    assert caplog.messages == []
    damage(in_state(copied, name))
    assert kept_state(folder, kept.chain) is None
    assert len(caplog.messages) == 1
    assert folder.with_name(f"{folder.name}.damaged").is_dir()
    assert not folder.exists()


def test_a_state_of_another_merge_is_set_aside(kept: Kept, copied: Workspace) -> None:
    assert kept_state(copied.state_folder(kept.chain), "sha256:" + "0" * 64) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["lock.yaml", "report.json"])
def test_a_damaged_lock_or_report_is_set_aside(
    copied: Workspace, caplog: pytest.LogCaptureFixture, damage: Damage, name: str
) -> None:
    read = read_work_lock if name == "lock.yaml" else read_work_report
    assert read(copied) is not None
    damage(copied.folder / name)
    assert read(copied) is None
    assert len(caplog.messages) == (damage is not delete)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["*.safetensors", "config.json", "hubmerge.json"])
def test_a_damaged_model_is_set_aside(
    copied: Workspace, caplog: pytest.LogCaptureFixture, damage: Damage, name: str
) -> None:
    folder = copied.step_folder(2)
    assert is_kept_model(folder)
    damage(next(folder.glob(name)))
    assert not is_kept_model(folder)
    assert len(caplog.messages) == 1
    assert not folder.exists()


def test_an_output_folder_takes_no_space_and_may_be_changed_in_place(kept: Kept, copied: Workspace) -> None:
    out = copied.folder.parent.parent / "out"
    good = merge(kept.recipe, copied.folder.parent, out)
    file = next(out.glob("*.safetensors"))
    assert file.samefile(copied.step_folder(3) / file.name)
    with file.open("r+b") as changed:
        changed.seek(-1, 2)
        changed.write(b"!")
    assert merge(kept.recipe, copied.folder.parent, out.with_name("again")) == good == kept.expected


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["pixels.npy", "pixels.npy.sha256"])
def test_a_damaged_file_of_the_evaluation_cache_is_set_aside(tmp_path: Path, damage: Damage, name: str) -> None:
    file = tmp_path / "cache" / "pixels.npy"
    assert not is_cached(file)
    for _ in range(2):
        with cached_file(file) as out:
            out.write(b"pixels" * 100)
        assert is_cached(file)
        damage(tmp_path / "cache" / name)
        assert not is_cached(file)


@pytest.mark.parametrize(
    "name", ["states/STATE/state.json", "states/STATE/parts.safetensors", "lock.yaml", "report.json", "run.lock"]
)
@pytest.mark.parametrize("damage", [flip, replace_by_folder])
def test_a_run_continues_after_damage(kept: Kept, copied: Workspace, tmp_path: Path, damage: Damage, name: str) -> None:
    path = in_state(copied, name.rpartition("/")[2]) if "STATE" in name else copied.folder / name
    if path.name == "run.lock":
        path.write_bytes(b"lock")
    damage(path)
    assert merge(kept.recipe, tmp_path / "work", tmp_path / "out") == kept.expected


@pytest.mark.parametrize("name", ["", "states", "cache", "parts", "step-02", "step-03"])
def test_a_file_in_place_of_a_folder_is_set_aside(kept: Kept, copied: Workspace, tmp_path: Path, name: str) -> None:
    folder = copied.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("a file")
    assert merge(kept.recipe, tmp_path / "work", tmp_path / "out") == kept.expected
    assert folder.with_name(f"{folder.name}.damaged").read_text() == "a file"


def test_a_damaged_published_state_is_merged_again(
    stage: Stage, tmp_path: Path, repo_name: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    target = repo_name("damaged")
    names = tuple(stage.towers)
    recipe = stage.write(tmp_path, stage.recipe(target, entries=names[:2], evaluate=None))
    run(recipe, work_dir=tmp_path / "one", progress=None).finish()
    files = HfApi().list_repo_files(target, revision=STATE_BRANCH)
    for file in (name for name in files if name.endswith("accumulated.safetensors")):
        content = bytearray(Path(HfApi().hf_hub_download(target, file, revision=STATE_BRANCH)).read_bytes())
        content[-1] ^= 1
        HfApi().upload_file(repo_id=target, path_in_repo=file, path_or_fileobj=bytes(content), revision=STATE_BRANCH)
    stage.write(tmp_path, stage.recipe(target, evaluate=None))
    run(recipe, work_dir=tmp_path / "two", progress=None).finish()
    assert sum("is damaged and not used" in message for message in caplog.messages) == 2
    stage.write(tmp_path, stage.recipe(None, evaluate=None))
    expected = merge(recipe, tmp_path / "three", tmp_path / "out")
    published = {path: sha256 for path, sha256 in stored_digests(target).items() if path.endswith(".safetensors")}
    assert published == expected


def stored_digests(repo: str) -> dict[str, str]:
    """Return the digests of the LFS files of a repo."""
    entries = HfApi().list_repo_tree(repo)
    return {entry.path: lfs.sha256 for entry in entries if (lfs := getattr(entry, "lfs", None)) is not None}
