"""Streams continued from the Hub alone: states and interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from hubmerge.support.names import STATE_BRANCH
from tests.reliability.target_checks import files_at, published
from tests.run.test_runs import MERGED
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


def state_folders(repo: str) -> list[str]:
    return [entry.path for entry in HfApi().list_repo_tree(repo, revision=STATE_BRANCH) if not hasattr(entry, "size")]


def test_extending_on_another_machine(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    names = tuple(stage.towers)
    repo, whole = repo_name("merged"), repo_name("merged")
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(whole)))[0] == 0
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, entries=names[:2])))[0] == 0
    assert len(state_folders(repo)) == 2
    shutil.rmtree(tmp_path / "work")
    status, output, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)), "--json")
    assert status == 0, errors
    events = [json.loads(line) for line in output.splitlines()]
    titles = [event["title"] for event in events if event["event"] == "stage"]
    assert "fetch the state of step 2" in titles
    assert not [title for title in titles if title.startswith(("step 1: ", "step 2: "))]
    assert published(repo) == published(whole)
    assert len(state_folders(repo)) == 2, "the published states are constant in size"
    assert len(list(HfApi().list_repo_commits(repo, revision=STATE_BRANCH))) == 1


def test_published_states_of_every_step_and_none(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    every, none = repo_name("merged"), repo_name("merged")
    for repo, state in ((every, "every"), (none, "none")):
        recipe = stage.recipe(repo, evaluate=None, publish={"repo": repo, "state": state})
        assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    assert len(state_folders(every)) == 3
    assert STATE_BRANCH not in {ref.name for ref in HfApi().list_repo_refs(none).branches}


def test_stream_without_state_is_merged_again(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    names, repo, whole = tuple(stage.towers), repo_name("merged"), repo_name("merged")
    publish = {"repo": repo, "state": "none"}
    short = stage.recipe(repo, entries=names[:2], evaluate=None, publish=publish)
    assert hubmerge("run", stage.write(tmp_path, short))[0] == 0
    before = files_at(repo, "step-02")
    shutil.rmtree(tmp_path / "work")
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, evaluate=None, publish=publish)))[0] == 0
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(whole, evaluate=None)))[0] == 0
    assert files_at(repo, "step-02") == before
    assert files_at(repo, "step-03")[MERGED] == files_at(whole, "step-03")[MERGED]


def test_tampered_state_is_not_used(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    names, repo, whole = tuple(stage.towers), repo_name("merged"), repo_name("merged")
    recipe = stage.recipe(repo, entries=names[:2], evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, recipe))[0] == 0
    for folder in state_folders(repo):
        name = f"{folder}/accumulated.safetensors"
        values = bytearray(Path(hf_hub_download(repo, name, revision=STATE_BRANCH)).read_bytes())
        values[-1] ^= 1
        HfApi().upload_file(repo_id=repo, path_in_repo=name, path_or_fileobj=bytes(values), revision=STATE_BRANCH)
    shutil.rmtree(tmp_path / "work")
    status, output, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo, evaluate=None)))
    assert status == 0, errors
    for step in (1, 2):
        assert f"the state of step {step} on branch {STATE_BRANCH} of {repo} is damaged and not used" in output
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(whole, evaluate=None)))[0] == 0
    assert files_at(repo, "step-03")[MERGED] == files_at(whole, "step-03")[MERGED]


SLOW = [pytest.param(moment, marks=pytest.mark.slow) for moment in (1, 7, 12, 17)]


@pytest.mark.parametrize("moment", [4, 9, 14, *SLOW])
def test_run_continues_after_a_kill(
    stage: Stage, tmp_path: Path, repo_name: Names, moment: int, uninterrupted: str
) -> None:
    """Kill the run at its `moment`-th event; the next run publishes equal files."""
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo))
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--json", "--work-dir", str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(moment):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert published(repo) == published(uninterrupted)
    leftovers = [path for path in (tmp_path / "work").rglob(".*") if path.name != ".gitattributes"]
    assert not leftovers


@pytest.fixture(scope="module")
def uninterrupted(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = stage.write(folder, stage.recipe("local/uninterrupted"))
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--quiet", "--work-dir", str(folder / "work")]
    subprocess.run(command, check=True)
    return "local/uninterrupted"


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_exits_with_130(stage: Stage, tmp_path: Path, repo_name: Names, interrupt: signal.Signals) -> None:
    if signal.getsignal(interrupt) == signal.SIG_IGN:
        pytest.skip("whoever started the tests ignores this signal, and so do their children")
    recipe = stage.write(tmp_path, stage.recipe(repo_name("merged"), evaluate=None))
    command = [sys.executable, "-m", "hubmerge", "run", str(recipe), "--json", "--work-dir", str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(interrupt)
        output, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in output + errors
