"""New commits of sources that take the places of the old ones, and entries that are revoked with their new commits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from safetensors.torch import load_file

from merge_recipes import Lock
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]


class Source:
    """A repo whose commits are copies of the checkpoints of the stage."""

    def __init__(self, stage: Stage, repo: str) -> None:
        self.stage, self.repo = stage, repo
        HfApi().create_repo(repo)

    def push(self, number: int) -> str:
        """Commit a checkpoint of the stage, and return the commit."""
        folder = snapshot_download(list(self.stage.towers.values())[number])
        return HfApi().upload_folder(repo_id=self.repo, folder_path=folder).oid


@pytest.fixture
def source(stage: Stage, repo_name: Names) -> Source:
    return Source(stage, repo_name("source"))


def recipe_of(stage: Stage, repo: str, moving: str, *, on_update: str, method: str = "wudi") -> dict[str, Any]:
    first = next(iter(stage.towers))
    models = [{"model": stage.towers[first], "name": first}, {"model": moving, "name": "moving"}]
    return stage.recipe(repo, entries=(first,), models=models, merge_method=method, on_update=on_update)


def report_of(repo: str) -> dict[str, Any]:
    return dict(json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8")))


def states(work: Path) -> dict[str, torch.Tensor]:
    """Return the accumulated deltas of the newest state in a work folder."""
    newest = max(work.rglob("accumulated.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    return load_file(newest)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wudi", "weight_average", "linear"])
def test_a_new_commit_takes_the_place_of_the_old_one(
    stage: Stage, source: Source, hubmerge: Command, tmp_path: Path, repo_name: Names, method: str
) -> None:
    repo, fresh = repo_name("merged"), repo_name("fresh")
    old = source.push(1)
    recipe = stage.write(tmp_path, recipe_of(stage, repo, source.repo, on_update="replace", method=method))
    assert hubmerge("run", recipe)[0] == 0
    new = source.push(2)
    status, output, _ = hubmerge("outdated", recipe)
    assert status == 10
    assert "takes the place of the old commit" in output
    status, output, errors = hubmerge("plan", recipe)
    assert "in place of moving" in output, errors
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, output + errors
    assert "take out moving" in output + errors
    lock = Lock.from_yaml(Path(hf_hub_download(repo, "hubmerge.lock.yaml")).read_text())
    assert [(model.name, model.commit) for model in lock.models[1:]] == [
        *[("moving", old), ("moving-revoked", old), ("moving-2", new)]
    ]
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01", "step-02", "step-04"]
    steps = report_of(repo)["steps"]
    assert [(step.get("revokes"), step.get("replaces")) for step in steps[2:]] == [("moving", None), (None, ["moving"])]
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "`moving-2`, a newer commit, took the place of `moving`" in card
    assert "merges 2 fine-tuned checkpoints" in card
    assert hubmerge("outdated", recipe)[0] == 0
    assert "nothing to do" in hubmerge("run", recipe)[1]
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors

    replaced = states(tmp_path / "work")
    other = tmp_path / "other"
    other.mkdir()
    alone = stage.write(other, recipe_of(stage, fresh, source.repo, on_update="ignore", method=method))
    assert hubmerge("run", alone)[0] == 0
    expected = states(tmp_path / "work")
    for name, values in expected.items():
        assert float((replaced[name] - values).norm()) <= 1e-10 * float(values.norm())


def test_a_new_commit_in_the_work_folder_takes_its_place(
    stage: Stage, source: Source, hubmerge: Command, tmp_path: Path
) -> None:
    source.push(1)
    keys = {**recipe_of(stage, "me/unused", source.repo, on_update="replace"), "evaluate": None}
    del keys["publish"]
    recipe = stage.write(tmp_path, keys)
    assert hubmerge("run", recipe)[0] == 0
    source.push(2)
    status, output, errors = hubmerge("run", recipe)
    assert status == 0, output + errors
    replaced = states(tmp_path / "work")
    status, output, errors = hubmerge("run", stage.write(tmp_path, keys), "--work-dir", tmp_path / "new")
    assert status == 0, output + errors
    for name, values in states(tmp_path / "new").items():
        assert float((replaced[name] - values).norm()) <= 1e-10 * float(values.norm())


def test_methods_that_cannot_subtract_refuse_to_replace(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    for method, message in (("opcm", "cannot take an entry out"), ("magmax", "cannot take an entry out")):
        recipe = stage.recipe(None, merge_method=method, evaluate=None, on_update="replace")
        status, _, errors = hubmerge("check", stage.write(tmp_path, recipe))
        assert status == 2
        assert message in errors
        assert "on_update: replay" in errors
    joint = stage.recipe(None, merge_method="linear", form="joint", evaluate=None, on_update="replace")
    status, _, errors = hubmerge("check", stage.write(tmp_path, joint))
    assert status == 2
    assert "linear merges all models at once" in errors


@pytest.mark.slow
def test_an_entry_is_revoked_with_its_newer_commits(
    stage: Stage, source: Source, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo, work = repo_name("merged"), ("--work-dir", str(tmp_path / "revoking"))
    source.push(1)
    keys = recipe_of(stage, repo, source.repo, on_update="append")
    recipe = stage.write(tmp_path, {**keys, "evaluate": None})
    assert hubmerge("run", recipe)[0] == 0
    source.push(2)
    assert hubmerge("run", recipe)[0] == 0
    status, output, errors = hubmerge("revoke", repo, "moving", "--only", "--work-dir", str(tmp_path / "only"))
    assert status == 0, output + errors
    assert [step.get("revokes") for step in report_of(repo)["steps"]] == [None, None, None, "moving"]
    status, output, errors = hubmerge("revoke", repo, "moving-2", *work)
    assert status == 0, output + errors
    assert f'- {{model: "{source.repo}", revoke: "moving-2"}}' in output + errors
    assert [step.get("revokes") for step in report_of(repo)["steps"]][3:] == ["moving", "moving-2"]
    assert hubmerge("verify", repo, "--quick")[0] == 0

    other = repo_name("other")
    recipe = stage.write(tmp_path, {**keys, "evaluate": None, "publish": {"repo": other}, "on_update": "replace"})
    assert hubmerge("run", recipe)[0] == 0
    source.push(1)
    assert hubmerge("run", recipe)[0] == 0
    status, output, errors = hubmerge("revoke", other, "moving", *work)
    assert status == 0, output + errors
    assert "moving-2" in output + errors
    revoked = [step.get("revokes") for step in report_of(other)["steps"]]
    assert revoked == [None, None, "moving", None, "moving-2"]


def test_all_commits_of_an_entry_are_revoked_together(
    stage: Stage, source: Source, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    repo = repo_name("merged")
    source.push(1)
    keys = {**recipe_of(stage, repo, source.repo, on_update="append"), "evaluate": None}
    recipe = stage.write(tmp_path, keys)
    assert hubmerge("run", recipe)[0] == 0
    source.push(2)
    assert hubmerge("run", recipe)[0] == 0
    status, output, errors = hubmerge("revoke", repo, "moving", "--work-dir", str(tmp_path / "revoking"))
    assert status == 0, output + errors
    assert "newer commits are taken out too: moving-2" in output + errors
    assert [step.get("revokes") for step in report_of(repo)["steps"]] == [None, None, None, "moving", "moving-2"]
    keys["models"] += [{"model": source.repo, "revoke": "moving"}, {"model": source.repo, "revoke": "moving-2"}]
    recipe = stage.write(tmp_path, keys)
    source.push(0)
    status, output, _ = hubmerge("outdated", recipe)
    assert "none: the recipe revokes the entry" in output
    assert "nothing to do" in hubmerge("run", recipe)[1]
    keys["models"][-1]["revoke"] = "moving-7"
    status, _, errors = hubmerge("check", stage.write(tmp_path, keys))
    assert status == 0, errors
    status, _, errors = hubmerge("plan", stage.write(tmp_path, keys))
    assert status == 2
    assert 'no earlier entry "moving-7"' in errors
