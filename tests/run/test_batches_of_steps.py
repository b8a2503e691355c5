"""Batches of steps: the bytes are equal to those of steps merged one by one."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hubmerge.run.output_folder import OutputFolder
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
MERGED = "model.safetensors"


def read(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "hubmerge.json").read_text(encoding="utf-8"))
    return report


def states(work: Path) -> list[int]:
    """Return the steps whose state is in the work folder."""
    return sorted(json.loads(path.read_text())["step"] for path in work.glob("*/states/*/state.json"))


def test_every_step_writes_all_models(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    each, last = tmp_path / "each", tmp_path / "last"
    status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "1", "--out", each, "--every-step")
    assert status == 0, errors
    assert [path.name for path in sorted(each.iterdir())] == ["step-01", "step-02", "step-03"]
    assert [len(read(folder)["steps"]) for folder in sorted(each.iterdir())] == [1, 2, 3]
    assert "step 2: merge" in output
    status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "2", "--out", last)
    assert status == 0, errors
    assert "steps 1-3: merge 3 checkpoints" in output
    assert states(tmp_path / "2") == [3]
    assert (last / MERGED).read_bytes() == (each / "step-03" / MERGED).read_bytes()
    whole, short = read(each / "step-03")["steps"], read(last)["steps"]
    varying: dict[str, Any] = {"files": {}, "rounding": None, "state_digest": None, "digest": None}
    assert [step | varying for step in short] == [step | varying for step in whole]
    assert [bool(step["files"]) for step in short] == [False, False, True]
    assert [step["state_digest"] for step in short] == [None, None, whole[2]["state_digest"]]


def test_output_folder_with_foreign_files_is_refused(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    status, _, errors = hubmerge("run", recipe, "--every-step")
    assert (status, "add --out DIR" in errors) == (2, True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for options in ((), ("--every-step",)):
        status, _, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "work", "--out", out, *options)
        assert status == 2
        assert f"--out {out}: the folder has files that are not a merged model" in errors
    assert not list(tmp_path.glob("work/*"))
    assert (out / "thesis.txt").read_text() == "mine"


def test_missing_models_of_earlier_runs_are_noted(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    work = ("--work-dir", tmp_path / "work")
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None, entries=tuple(stage.towers)[:2]))
    assert hubmerge("run", recipe, *work)[0] == 0
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    status, output, errors = hubmerge("run", recipe, *work, "--out", tmp_path / "out", "--every-step")
    assert status == 0, errors
    assert "models not written: step 1 (merged by an earlier run" in output
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["step-02", "step-03"]


def test_extended_stream_equals_one_merged_at_once(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    outs = []
    for lengths in ((3,), (1, 3), (2, 3)):
        work, out = (tmp_path / f"{kind}-{len(lengths)}-{lengths[0]}" for kind in ("work", "out"))
        for length in lengths:
            recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None, entries=tuple(stage.towers)[:length]))
            status, _, errors = hubmerge("run", recipe, "--work-dir", work, "--out", out)
            assert status == 0, errors
        [state] = (path for path in work.glob("*/states/*") if path.is_dir())
        outs.append([(out / MERGED).read_bytes(), *(path.read_bytes() for path in sorted(state.glob("*.safetensors")))])
    assert outs[1] == outs[0]
    assert outs[2] == outs[0]


@pytest.mark.parametrize("state", ["last", "none"])
def test_last_published_step_can_be_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], state: str
) -> None:
    stage.fetch()
    repo = repo_name("merged")
    publish = {"repo": repo, "steps": "last", "state": state}
    recipe = stage.write(tmp_path, stage.recipe(repo, evaluate=None, publish=publish))
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert ("steps 1-3: merge" in output, "steps 1-2: merge" in output) == (state == "none", state == "last")
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    assert "recomputed: the same bytes" in output


def test_downloaded_checkpoints_are_merged_one_by_one(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None))
    status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "1", "--out", tmp_path / "a")
    assert status == 0, errors
    assert [f"step {step}: merge" in output for step in (1, 2, 3)] == [True, True, True]
    status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "2", "--out", tmp_path / "b")
    assert status == 0, errors
    assert "steps 1-3: merge 3 checkpoints" in output
    assert (tmp_path / "a" / MERGED).read_bytes() == (tmp_path / "b" / MERGED).read_bytes()


def test_steps_before_a_bad_checkpoint_are_kept(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    *good, last = stage.fetch()
    bad, work = tmp_path / "bad", tmp_path / "work"
    shutil.copytree(last, bad)
    tensors = load_file(bad / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, bad / "model.safetensors", metadata={"format": "pt"})
    models = [{"model": str(path), "name": f"m{number}"} for number, path in enumerate((*good, bad), start=1)]
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None, models=models))
    status, output, errors = hubmerge("run", recipe, "--work-dir", work, "--out", tmp_path / "out")
    assert (status, "not finite" in errors) == (4, True)
    assert "step 2: merge" in output
    assert states(work) == [2]
    recipe = stage.write(tmp_path, stage.recipe(None, evaluate=None, models=models[:2]))
    status, output, errors = hubmerge("run", recipe, "--work-dir", work, "--out", tmp_path / "out")
    assert status == 0, errors
    assert ("write the merged model" in output, ": merge" in output) == (True, False)


def test_model_is_copied_to_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.parent.name == "work" and not self.name.startswith(".") and target.parent != self.parent:
            raise OSError(errno.EXDEV, "another disk")
        return real(self, target)

    for step in (1, 2):
        (tmp_path / "work" / f"step-0{step}").mkdir(parents=True)
        (tmp_path / "work" / f"step-0{step}" / "model").write_text(str(step))
    out = OutputFolder(tmp_path / "out", every_step=True)
    out.move(tmp_path / "work" / "step-01", 1)
    monkeypatch.setattr(Path, "rename", rename)
    out.move(tmp_path / "work" / "step-02", 2)
    out.move(tmp_path / "work" / "step-03", 3)
    assert {path.parent.name: path.read_text() for path in out.folder.rglob("model")} == {
        "step-01": "1",
        "step-02": "2",
    }
    assert not list((tmp_path / "work").iterdir())
