"""Failures of the machine: full disks, read-only folders, a clock that jumps."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.reliability.conftest import RequestHook
from tests.reliability.target_checks import leftovers, published, steps_shown
from tests.run_launcher import Places, RunLauncher, can_have_a_private_disk

Command = Callable[..., tuple[int, str, str]]
Quick = Callable[..., tuple[str, Path]]
Undisturbed = Callable[[int], dict[str, dict[str, str]]]


def check_error(output: Path, *words: str) -> None:
    text = output.read_text()
    assert "Traceback" not in text
    assert "internal error" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("largest_file", [0, 200, 3_000, 40_000, 150_000, 400_000, 900_000])
def test_limited_file_size(
    launcher: RunLauncher, quick: Quick, undisturbed: Undisturbed, tmp_path: Path, largest_file: int
) -> None:
    """Limit the size of files, as a full disk or a quota does."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    places: Places = {"output": tmp_path / "output", "cache": tmp_path / "cache", "TMPDIR": str(tmp_path)}
    arguments: list[str | Path] = ["run", recipe, "--work-dir", tmp_path / "work"]
    launcher.start(*arguments, largest_file=largest_file, **places)
    assert launcher.wait() == 5, places["output"].read_text()
    check_error(tmp_path / "output", "hint:")
    steps_shown(repo)
    launcher.start(*arguments, **places)
    assert launcher.wait() == 0, places["output"].read_text()
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole
    assert leftovers(tmp_path) == []


MOMENTS = {
    "while headers are read": (2, "GET /hubmerge-demo/[^/]+/resolve/"),
    "in a download": (5, "GET /hubmerge-demo/[^/]+/resolve/.*model.safetensors"),
    "when a step is merged": (1, "POST /api/repos/create"),
    "when a step is published": (1, "POST /api/models/{target}/tag/"),
    "when the next step is published": (2, "POST /api/models/{target}/commit/main"),
}


@pytest.fixture(scope="session")
def private_disks() -> None:
    if not can_have_a_private_disk():
        pytest.skip("this machine lets no process mount a disk of its own")


@pytest.mark.usefixtures("private_disks")
@pytest.mark.parametrize("moment", MOMENTS)
def test_full_disk_during_a_run(
    launcher: RunLauncher,
    quick: Quick,
    request_hook: RequestHook,
    undisturbed: Undisturbed,
    tmp_path: Path,
    moment: str,
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    disk = tmp_path / "disk"
    disk.mkdir()
    pid = 0

    def fill() -> None:
        rest = Path(f"/proc/{pid}/root{disk}/somebody-elses")
        with rest.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    number, pattern = MOMENTS[moment]
    request_hook.set(pattern.format(target=repo), fill, number)
    places: Places = {"output": tmp_path / "output", "cache": disk / "cache", "TMPDIR": str(disk)}
    pid = launcher.start("run", recipe, "--work-dir", disk / "work", small_disk=disk, **places)
    status = launcher.wait()
    assert status == 5, places["output"].read_text()
    check_error(tmp_path / "output", "hint:", str(disk))
    steps_shown(repo)
    launcher.start("run", recipe, "--work-dir", disk / "work", **places)
    assert launcher.wait() == 0, places["output"].read_text()
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole


@pytest.mark.parametrize("part", ["work", "cache", "out"])
def test_read_only_folder(
    launcher: RunLauncher, quick: Quick, undisturbed: Undisturbed, tmp_path: Path, part: str
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)
    folder = tmp_path / part
    folder.mkdir()
    folder.chmod(0o555)
    places: Places = {"output": tmp_path / "output", "cache": tmp_path / "cache", "TMPDIR": str(tmp_path)}
    arguments: list[str | Path] = ["run", recipe, "--work-dir", tmp_path / "work", "--out", tmp_path / "out" / "model"]
    launcher.start(*arguments, powerless=True, **places)
    assert launcher.wait() == 5, places["output"].read_text()
    check_error(tmp_path / "output", "hint:", str(folder))
    steps_shown(repo)
    folder.chmod(0o755)
    launcher.start(*arguments, powerless=True, **places)
    assert launcher.wait() == 0, places["output"].read_text()
    assert published(repo) == whole
    assert (tmp_path / "out" / "model" / "config.json").is_file()
    assert leftovers(tmp_path) == []


def test_work_folder_becomes_read_only(
    launcher: RunLauncher, quick: Quick, request_hook: RequestHook, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    whole = undisturbed(2)
    repo, recipe = quick(2)

    def set_mode(mode: int) -> None:
        for folder, _, _ in os.walk(tmp_path / "work"):
            Path(folder).chmod(mode)

    request_hook.set(f"POST /api/models/{repo}/commit/main", lambda: set_mode(0o555))
    places: Places = {"output": tmp_path / "output", "cache": tmp_path / "cache", "TMPDIR": str(tmp_path)}
    launcher.start("run", recipe, "--work-dir", tmp_path / "work", powerless=True, **places)
    assert launcher.wait() == 5, places["output"].read_text()
    check_error(tmp_path / "output", "hint:", str(tmp_path / "work"))
    steps_shown(repo)
    set_mode(0o755)
    launcher.start("run", recipe, "--work-dir", tmp_path / "work", powerless=True, **places)
    assert launcher.wait() == 0, places["output"].read_text()
    assert published(repo) == whole
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("seed", [1, 2])
def test_jumping_clock(
    hubmerge: Command,
    quick: Quick,
    request_hook: RequestHook,
    undisturbed: Undisturbed,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seed: int,
) -> None:
    """Return a random year for every read of the clock, and set random times on written files."""
    whole = undisturbed(2)
    repo, recipe = quick(2)
    chance, real = random.Random(seed), time.time
    changed: list[Path] = []

    def jumping() -> float:
        return real() + chance.uniform(-10, 10) * 365.25 * 86400

    def change_times() -> None:
        for file in (tmp_path / "work").rglob("*"):
            with suppress(FileNotFoundError):  # the run removes files meanwhile
                os.utime(file, (jumping(), jumping()))
                changed.append(file)

    request_hook.set(f"POST /api/models/{repo}/commit/main", change_times)
    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    status, output, errors = hubmerge("run", recipe, "--work-dir", tmp_path / "work", "--json")
    monkeypatch.undo()
    assert status == 0, output + errors
    assert any(file.suffix == ".safetensors" for file in changed)
    assert steps_shown(repo) == [1, 2]
    assert published(repo) == whole
