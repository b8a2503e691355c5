"""Changes between and during runs: two runs at once, new commits of sources, changed recipes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download

from tests.reliability.target_checks import files_at
from tests.run.test_runs import MERGED
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


def titles(repo: str) -> list[str]:
    """Return the titles of the commits on main, oldest first, without the initial one."""
    return [commit.title for commit in HfApi().list_repo_commits(repo)][-2::-1]


def test_two_runs_at_once(stage: Stage, tmp_path: Path, repo_name: Names) -> None:
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo, evaluate=None))
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--quiet", "--work-dir"]
    runs = [
        subprocess.Popen([*command, str(tmp_path / name)], stderr=subprocess.PIPE, text=True) for name in ("one", "two")
    ]
    ends = [(run.communicate()[1], run.returncode) for run in runs]
    assert [status for _, status in ends] == [0, 0], ends
    assert titles(repo) == [f"step-0{n}: merge {name}" for n, name in enumerate(stage.towers, 1)]
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01", "step-02", "step-03"]


def test_changed_order_is_refused_and_replayed_on_request(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    one, two, three = stage.towers
    repo, fresh = repo_name("merged"), repo_name("merged")
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, evaluate=None)))[0] == 0
    before = files_at(repo, "step-01")
    changed = stage.recipe(repo, entries=(one, three, two), evaluate=None)
    status, _, errors = hubmerge("run", stage.write(tmp_path, changed))
    assert status == 3
    assert "--replay" in errors
    assert hubmerge("run", stage.write(tmp_path, changed), "--replay")[0] == 0
    assert titles(repo)[3:] == ["Roll back to step-01", f"step-02: merge {three}", f"step-03: merge {two}"]
    assert files_at(repo, "step-01") == before
    assert hubmerge("run", stage.write(tmp_path, {**changed, "publish": {"repo": fresh}}))[0] == 0
    for tag in ("step-02", "step-03"):
        assert files_at(repo, tag)[MERGED] == files_at(fresh, tag)[MERGED]
    shorter = stage.recipe(repo, entries=(one, three), evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, shorter))[0] == 3
    assert hubmerge("run", stage.write(tmp_path, shorter), "--replay")[0] == 0
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01", "step-02"]
    assert files_at(repo, "main")[MERGED] == files_at(fresh, "step-02")[MERGED]


def test_on_update_replay_merges_the_new_commit(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    one, two, three = stage.towers
    source, repo, fresh = repo_name("source"), repo_name("merged"), repo_name("merged")
    api = HfApi()
    api.create_repo(source)
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[two]))
    models = [{"model": stage.towers[one], "name": one}, {"model": source, "name": two}]
    recipe = stage.recipe(repo, models=models, evaluate=None, on_update="replay")
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    assert "nothing to do" in hubmerge("run", stage.write(tmp_path, recipe))[1]
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[three]))
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    assert titles(repo)[2:] == ["Roll back to step-01", f"step-02: merge {two}"]
    models[1] = {"model": stage.towers[three], "name": two}
    whole = stage.recipe(fresh, models=models, evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, whole))[0] == 0
    assert files_at(repo, "step-02")[MERGED] == files_at(fresh, "step-02")[MERGED]


@pytest.mark.parametrize("state", ["last", "every", "none"])
def test_replay_on_another_machine_starts_at_the_newest_usable_state(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, state: str
) -> None:
    """Move the second of three entries; only `state: every` has the state after the first."""
    one, two, three = stage.towers
    source, repo, fresh = repo_name("source"), repo_name("merged"), repo_name("merged")
    api = HfApi()
    api.create_repo(source)
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[two]))
    models = [
        {"model": stage.towers[one], "name": one},
        {"model": source, "name": two},
        {"model": stage.towers[three], "name": three},
    ]
    publish = {"repo": repo, "state": state}
    recipe = stage.recipe(repo, models=models, evaluate=None, on_update="replay", publish=publish)
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    first = files_at(repo, "step-01")
    shutil.rmtree(tmp_path / "work")
    api.upload_folder(repo_id=source, folder_path=snapshot_download(stage.towers[three]))
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipe), "--json")
    assert status == 0, errors
    stages = [event["title"] for event in map(json.loads, output.splitlines()) if event["event"] == "stage"]
    assert (f"step 1: merge {one}" in stages) is (state != "every")
    assert f"step 2: merge {two}" in stages
    assert titles(repo)[3:] == ["Roll back to step-01", f"step-02: merge {two}", f"step-03: merge {three}"]
    assert files_at(repo, "step-01") == first
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(fresh, models=models, evaluate=None)))[0] == 0
    for tag in ("step-02", "step-03"):
        assert files_at(repo, tag)[MERGED] == files_at(fresh, tag)[MERGED]
