"""The whole report of each step is published once, in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from tests.reliability.target_checks import files_at
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


def history(repo: str, revision: str) -> dict[str, str]:
    return {path: digest for path, digest in files_at(repo, revision).items() if path.startswith("history/")}


def recipe(stage: Stage, folder: Path, repo: str | None, entries: int, **changes: object) -> Path:
    return stage.write(folder, stage.recipe(repo, entries=tuple(stage.towers)[:entries], evaluate=None, **changes))


def test_each_file_is_published_once(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    """Also by a run on another machine, which has none of the earlier files."""
    repo = repo_name("target")
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 3), "--work-dir", tmp_path / "other")
    assert status == 0, errors
    assert not (next((tmp_path / "other").iterdir()) / "history" / "step-01.json").exists()
    files = [history(repo, f"step-{step:02d}") for step in (1, 2, 3)]
    assert [len(found) for found in files] == [1, 2, 3]
    assert files[0].items() <= files[1].items() <= files[2].items()
    status, output, errors = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert "differs" not in output, errors
    assert hubmerge("rollback", repo, "--to", "step-02")[0] == 0
    assert history(repo, "main") == files[1]
    swapped = recipe(stage, tmp_path, repo, 2)
    swapped.write_text(swapped.read_text().replace("merge_method: opcm", "merge_method: weight_average"))
    status, _, errors = hubmerge("run", swapped, "--replay")
    assert status == 0, errors
    replayed = history(repo, "main")
    assert replayed.keys() == files[1].keys()
    assert not replayed.items() & files[1].items()


def test_changed_files_are_found(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo, api = repo_name("target"), HfApi()
    assert hubmerge("run", recipe(stage, tmp_path, repo, 2))[0] == 0
    first = Path(api.hf_hub_download(repo, "history/step-01.json")).read_bytes()
    changed = first.replace(b'"name": "', b'"name": "x')
    for operations, problem in (
        ([CommitOperationAdd("history/step-01.json", changed)], "report: history/step-01.json does not match the dig"),
        ([CommitOperationDelete("history/step-01.json")], "report: history/step-01.json is missing"),
        (
            [CommitOperationAdd("history/step-01.json", first), CommitOperationAdd("history/step-03.json", first)],
            "files: history/step-03.json is not in the list of files in the report",
        ),
    ):
        api.create_commit(repo, operations, commit_message="Change")
        status, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
        assert status == 6
        assert f"differs  {problem}" in output
    status, _, errors = hubmerge("run", recipe(stage, tmp_path, repo, 3))
    assert status == 3
    assert f"target repo {repo} has files that hubmerge did not publish: history/step-03.json" in errors


@pytest.mark.parametrize("flag", ["--every-step", "--quiet"])
def test_output_folders_have_the_files_of_all_their_steps(
    stage: Stage, hubmerge: Command, tmp_path: Path, flag: str
) -> None:
    out = tmp_path / "out"
    assert hubmerge("run", recipe(stage, tmp_path, None, 2), "--out", out, flag)[0] == 0
    last = out / "step-02" if flag == "--every-step" else out
    assert sorted(path.name for path in (last / "history").iterdir()) == ["step-01.json", "step-02.json"]
    assert json.loads((last / "history" / "step-02.json").read_text())["step"] == 2
    if flag == "--every-step":
        assert [path.name for path in (out / "step-01" / "history").iterdir()] == ["step-01.json"]


def test_only_the_last_published_step_has_all_files(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    """The steps between were never published; a damaged file of the work folder is made again with its step."""
    repo = repo_name("target")
    written = recipe(stage, tmp_path, repo, 3, publish={"repo": repo, "steps": "last"})
    work = tmp_path / "work"
    assert hubmerge("run", written)[0] == 0
    assert len(history(repo, "main")) == 3
    for path in work.glob("*/history/step-01.json"):
        path.write_bytes(b"{}")
    assert hubmerge("run", written)[0] == 0
    _, output, _ = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert "differs" not in output
