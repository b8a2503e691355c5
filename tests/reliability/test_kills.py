"""A run that is killed goes on where it was, and nobody ever sees half a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.conftest import Tripwire
from tests.reliability.forge import Forge
from tests.reliability.wholeness import leftovers, published, steps_shown

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
def test_kill_and_go_on(
    forge: Forge, quick: Quick, tripwire: Tripwire, undisturbed: Undisturbed, tmp_path: Path, moment: str
) -> None:
    whole = undisturbed(3)
    repo, recipe = quick(3)
    arguments = ["run", recipe, "--work-dir", tmp_path / "work", "--json"]
    places = {"output": tmp_path / "output", "cache": tmp_path / "cache"}
    pid = 0

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)

    number, pattern = MOMENTS[moment]
    tripwire.set(pattern.format(target=repo), kill, number)
    pid = forge.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert forge.wait() == -signal.SIGKILL, tripwire.seen
    steps_shown(repo)
    forge.start(*arguments, **places, TMPDIR=str(tmp_path))
    assert forge.wait() == 0, (tmp_path / "output").read_text()
    assert steps_shown(repo) == [1, 2, 3]
    assert published(repo) == whole
    assert leftovers(tmp_path) == []
