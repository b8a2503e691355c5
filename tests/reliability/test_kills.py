"""Runs that are killed: the next run continues, and the target never shows part of a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import RequestHook
from tests.reliability.target_checks import leftovers, published, steps_shown
from tests.run_launcher import Places, RunLauncher

Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]

MOMENTS = {
    "while the files of a source are listed": (2, "GET /api/models/hubmerge-demo/[^/]+/tree/"),
    "in a download": (5, "GET /hubmerge-demo/[^/]+/resolve/.*model.safetensors"),
    "before the target is made": (1, "POST /api/repos/create"),
    "in the upload of a state": (2, "POST /api/models/{target}/commit/hubmerge-state"),
    "in the upload of the weights": (2, "POST /{target}.git/info/lfs/objects/batch"),
    "in the commit of a step": (2, "POST /api/models/{target}/commit/main"),
    "before the tag is set": (2, "POST /api/models/{target}/tag/"),
    "while old states are forgotten": (1, "POST /api/models/{target}/super-squash/"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_run_continues_after_a_kill(
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

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)

    number, pattern = MOMENTS[moment]
    request_hook.set(pattern.format(target=repo), kill, number)
    pid = launcher.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert launcher.wait() == -signal.SIGKILL, request_hook.seen
    steps_shown(repo)
    launcher.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert launcher.wait() == 0, (tmp_path / "output").read_text()
    assert steps_shown(repo) == [1, 2, 3]
    assert published(repo) == whole
    assert leftovers(tmp_path) == []
