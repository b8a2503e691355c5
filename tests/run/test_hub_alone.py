"""Streams continued from the Hub alone: states and interruptions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from hubmerge.support.names import STATE_BRANCH
from tests.reliability.target_checks import files_at, published
from tests.run.test_runs import MERGED
from tests.run_launcher import RunLauncher
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
    stage: Stage, launcher: RunLauncher, tmp_path: Path, repo_name: Names, moment: int, uninterrupted: str
) -> None:
    """Kill the run at its `moment`-th event; the next run publishes equal files."""
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo))
    arguments = ("run", recipe, "--json", "--work-dir", tmp_path / "work")
    process = launcher.start(*arguments, output=tmp_path / "first", cache=tmp_path / "cache")
    wait_for_lines(tmp_path / "first", moment)
    with suppress(ProcessLookupError):  # the run can end first where this process gets no time
        os.kill(process, signal.SIGKILL)
    assert launcher.wait() in {-signal.SIGKILL, 0}
    launcher.start(*arguments, output=tmp_path / "second", cache=tmp_path / "cache")
    assert launcher.wait() == 0, (tmp_path / "second").read_text(encoding="utf-8")
    assert published(repo) == published(uninterrupted)
    leftovers = [path for path in (tmp_path / "work").rglob(".*") if path.name != ".gitattributes"]
    assert not leftovers


def wait_for_lines(path: Path, count: int) -> None:
    """Wait until a process has written a number of lines to a file."""
    end = time.monotonic() + 300
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end, "the process writes nothing more"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(stage: Stage, launcher: RunLauncher, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = stage.write(folder, stage.recipe("local/uninterrupted"))
    arguments = ("run", recipe, "--quiet", "--work-dir", folder / "work")
    launcher.start(*arguments, output=folder / "output", cache=folder / "cache")
    assert launcher.wait() == 0, (folder / "output").read_text(encoding="utf-8")
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
