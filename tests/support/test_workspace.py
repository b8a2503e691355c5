"""A work folder belongs to one run at a time, and holds only whole folders."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hubmerge.errors import MachineError
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.workspace import open_workspace, workspace_name
from tests.checks import every

HOLD = """
import sys
from pathlib import Path
from hubmerge.support.workspace import open_workspace
with open_workspace(Path(sys.argv[1]), "run"):
    print("open", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run(work_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Keep the folder `run` open in another process."""
    command = [sys.executable, "-c", HOLD, str(work_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_is_refused_while_another_run_uses_it(tmp_path: Path) -> None:
    with (
        another_run(tmp_path),
        pytest.raises(MachineError, match=r"^another run is using") as refused,
        open_workspace(tmp_path, "run"),
    ):
        pass
    assert refused.value.context.file == str(tmp_path / "run")
    assert refused.value.hint == "wait for it to end, or choose another --work-dir"


def test_a_killed_run_gives_its_folder_back(tmp_path: Path) -> None:
    with another_run(tmp_path) as process:
        process.kill()
        process.wait()
        with open_workspace(tmp_path, "run") as workspace:
            assert (workspace.folder / "run.lock").is_file()


def test_a_folder_can_be_used_again_and_two_folders_at_once(tmp_path: Path) -> None:
    for _ in range(2):
        with open_workspace(tmp_path, "run") as first, open_workspace(tmp_path, "other") as second:
            assert first.folder != second.folder


def test_a_file_in_the_way_is_an_error_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MachineError, match="cannot be used: ") as refused, open_workspace(tmp_path / "file", "run"):
        pass
    assert refused.value.hint == "choose another --work-dir"


def test_leftovers_of_an_interrupted_run_are_removed(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "run") as workspace:
        whole = [workspace.state_folder("sha256:" + "1" * 64), workspace.step_folder(1), workspace.cache / "pixels"]
        leftovers = [path.with_name(f".{path.name}.partial") for path in whole]
        for path in (*whole, *leftovers):
            path.mkdir(parents=True)
        (workspace.folder / ".report.json.partial").write_bytes(b"{")
    with open_workspace(tmp_path, "run") as workspace:
        assert every(path.is_dir() for path in whole)
        assert not any(path.exists() for path in leftovers)
        assert not (workspace.folder / ".report.json.partial").exists()


def test_states_and_fetched_parts_are_removed_but_for_those_still_needed(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "run") as workspace:
        digests = ["sha256:" + digit * 64 for digit in "12"]
        parts = [workspace.partial_downloads / name for name in ("a", "b")]
        for folder in (*map(workspace.state_folder, digests), *parts):
            folder.mkdir(parents=True)
        workspace.remove_states(keep={digests[0]})
        workspace.remove_partial_downloads(keep={parts[1]})
        assert [workspace.state_folder(digest).exists() for digest in digests] == [True, False]
        assert [part.exists() for part in parts] == [False, True]


def test_a_name_is_readable_and_unique_to_its_run() -> None:
    first, second = workspace_name("one", "owner/merged model"), workspace_name("two", "owner/merged model")
    assert first.rpartition("-")[0] == second.rpartition("-")[0] == "owner-merged-model"
    assert first != second
    assert workspace_name("one", "///").startswith("run-")


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_folder("runs") == tmp_path / "hubmerge" / "runs"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another folder for caches")
def test_the_cache_folder_is_in_the_home_folder_on_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_folder("runs") == tmp_path / ".cache" / "hubmerge" / "runs"
