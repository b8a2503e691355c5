"""Runs that are interrupted: nothing is published after the line, and the next run ends with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.support import interrupts
from hubmerge.support.interrupts import STOPPING
from hubmerge.support.names import STATE_BRANCH
from tests.reliability.conftest import RequestHook
from tests.reliability.target_checks import leftovers, published, steps_shown
from tests.reliability.test_kills import MOMENTS
from tests.run_launcher import Places, RunLauncher
from tests.stage import Stage

Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]

COMMIT = "in the commit of a step"
FAST = {"in a download": signal.SIGINT, "in the upload of the weights": signal.SIGTERM, COMMIT: signal.SIGHUP}


def refs(repo: str) -> dict[str, str]:
    """Return the commit of every branch and tag; empty if the repo does not exist."""
    if not HfApi().repo_exists(repo):
        return {}
    found = HfApi().list_repo_refs(repo)
    return {ref.ref: ref.target_commit for ref in (*found.branches, *found.tags)}


def wait_for_line(output: Path) -> None:
    """Wait until the line of the first signal is printed."""
    deadline = time.monotonic() + 60
    while STOPPING not in (output.read_text() if output.exists() else ""):
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.01)


def check_output(output: str) -> None:
    """Check that an interrupted run said so once, in JSON, and without a traceback."""
    assert output.count(STOPPING) == 1
    assert '"code": "interrupted"' in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "moment", [moment if moment in FAST else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_nothing_is_published_after_the_line(
    launcher: RunLauncher,
    quick: Quick,
    request_hook: RequestHook,
    undisturbed: Undisturbed,
    tmp_path: Path,
    moment: str,
) -> None:
    whole = undisturbed(3)
    repo, recipe = quick(3)
    arguments: list[str | Path] = ["run", recipe, "--work-dir", tmp_path / "work", "--json"]
    places: Places = {"output": tmp_path / "output", "cache": tmp_path / "cache"}
    pid = 0
    seen: list[dict[str, str]] = []

    def interrupt() -> None:
        os.kill(pid, FAST.get(moment, signal.SIGINT))
        if not changes_the_hub:  # otherwise the line waits for the end of the request
            wait_for_line(tmp_path / "output")
            seen.append(refs(repo))

    number, pattern = MOMENTS[moment]
    changes_the_hub = pattern.startswith("POST /api/")
    request_hook.set(pattern.format(target=repo), interrupt, number)
    pid = launcher.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert launcher.wait() == 130, (tmp_path / "output").read_text()
    check_output((tmp_path / "output").read_text())
    main = {ref: commit for ref, commit in refs(repo).items() if STATE_BRANCH not in ref}
    if moment == COMMIT:
        assert len(steps_shown(repo)) == 2
        assert not any("step-02" in ref for ref in main), "the tag would come after the line"
    elif seen:
        assert main == {ref: commit for ref, commit in seen[0].items() if STATE_BRANCH not in ref}
    launcher.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert launcher.wait() == 0, (tmp_path / "output").read_text()
    assert steps_shown(repo) == [1, 2, 3]
    assert published(repo) == whole
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["GET /api/datasets/", "GET /datasets/", "GET /api/models/hubmerge-demo/"])
def test_an_interrupted_evaluation_publishes_nothing(
    launcher: RunLauncher,
    stage: Stage,
    request_hook: RequestHook,
    tmp_path: Path,
    repo_name: Callable[..., str],
    pattern: str,
) -> None:
    repo = repo_name("target")
    recipe = stage.write(tmp_path, stage.recipe(repo, entries=tuple(stage.towers)[:1]))
    arguments: list[str | Path] = ["run", recipe, "--work-dir", tmp_path / "work", "--json"]
    datasets = str(tmp_path / "datasets")
    places: Places = {"output": tmp_path / "output", "cache": tmp_path / "cache", "HF_DATASETS_CACHE": datasets}
    pid = 0

    def interrupt() -> None:
        os.kill(pid, signal.SIGINT)
        wait_for_line(tmp_path / "output")

    request_hook.set(pattern, interrupt, 2)
    pid = launcher.start(*arguments, **places)
    assert launcher.wait() == 130, (tmp_path / "output").read_text()
    assert refs(repo) == {}
    launcher.start(*arguments, **places)
    assert launcher.wait() == 0, (tmp_path / "output").read_text()
    assert steps_shown(repo) == [1]


def start(*arguments: str | Path, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """Start `hubmerge ARGUMENTS` as a program, with an empty Hub cache."""
    command = [sys.executable, "-m", "hubmerge", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_CACHE": str(folder / "cache")}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_the_second_signal_ends_a_run_at_once(quick: Quick, request_hook: RequestHook, tmp_path: Path) -> None:
    """The run waits for an answer that does not come."""
    repo, recipe = quick(1)
    answered, asked = threading.Event(), threading.Event()

    def stall() -> None:
        asked.set()
        answered.wait(60)

    request_hook.set(f"POST /{repo}.git/info/lfs/objects/batch", stall)
    with start("run", recipe, "--quiet", "--work-dir", tmp_path / "work", folder=tmp_path) as process:
        assert process.stderr is not None
        try:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == f"{STOPPING}\n"
            time.sleep(2 * interrupts.PRESSED_SECONDS)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert not answered.is_set()
        finally:
            answered.set()
            process.kill()
        assert process.stderr.read() == "hubmerge: stopped\n"
    assert not any("step" in ref for ref in refs(repo))


def test_a_python_program_is_interrupted(quick: Quick, request_hook: RequestHook, tmp_path: Path) -> None:
    repo, recipe = quick(2)
    program = f"import hubmerge\nhubmerge.run({str(recipe)!r}, work_dir={str(tmp_path / 'work')!r}).finish()"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        request_hook.set(f"POST /api/models/{repo}/commit/main", lambda: process.send_signal(signal.SIGTERM))
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGINT, errors
    assert errors.startswith(f"{STOPPING}\n")
    assert errors.endswith("KeyboardInterrupt\n")
    assert steps_shown(repo) == [1]
    assert not any("step" in ref for ref in refs(repo))
