"""Tests of crashes and concurrency: the server is killed while clients commit, and every repo stays intact."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import MachineError
from hubmerge.localhub import LocalHub
from hubmerge.localhub.durable import TemporaryFolder, locked
from tests.localhub.programs import server
from tests.localhub.wholeness import check_whole

WRITER = Path(__file__).with_name("writer.py")


def test_repos_stay_intact_when_the_server_is_killed_at_random_moments(tmp_path: Path) -> None:
    random = Random(20)
    for number in range(4):
        with server(tmp_path) as (process, endpoint, token):
            writer = subprocess.Popen(
                [sys.executable, str(WRITER), str(number)],
                env={**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": token},
                stdout=subprocess.PIPE,
                text=True,
            )
            assert writer.stdout is not None
            first = writer.stdout.readline()
            threading.Event().wait(random.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
            process.wait()
            writer.kill()
            # The kill may truncate the last line.
            acknowledged = [line.split() for line in [first, *writer.stdout.read().split("\n")[:-1]]]
            writer.wait()
            writer.stdout.close()
        lengths = check_whole(tmp_path)
        with LocalHub(tmp_path) as again:
            api = HfApi(again.endpoint, token=again.token)
            commits = {repo: [commit.commit_id for commit in api.list_repo_commits(repo)] for repo, _ in acknowledged}
        assert commits
        for repo, oid in acknowledged:
            assert oid in commits[repo], "an acknowledged commit was lost"
            assert lengths[repo] == len(commits[repo])
    assert list((tmp_path / "tmp").iterdir()) == []


def test_repos_stay_intact_when_the_process_is_killed_before_any_change(tmp_path: Path) -> None:
    """Kill creation, commit, tag, move and deletion before each of their changes to the disk."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.localhub.crashing", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


def test_temporary_folders_of_ended_servers_are_removed(tmp_path: Path) -> None:
    living = TemporaryFolder(tmp_path)
    (living.folder / "half").write_bytes(b"x")
    dead = tmp_path / "tmp" / "1-dead"
    dead.mkdir()
    (dead / "half").write_bytes(b"x")
    dead.with_name("1-dead.lock").touch()
    second = TemporaryFolder(tmp_path)
    assert (living.folder / "half").exists()
    assert not dead.exists()
    living.close()
    second.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    """Let 16 threads increment a number in a file, each under the lock."""
    number = tmp_path / "number"
    number.write_text("0", encoding="ascii")

    def count() -> None:
        for _ in range(5):
            with locked(tmp_path / "locks" / "number"):
                found = int(number.read_text(encoding="ascii"))
                threading.Event().wait(0.001)
                number.write_text(str(found + 1), encoding="ascii")

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number.read_text(encoding="ascii") == "80"


def test_two_servers_on_one_folder_lose_no_commit(tmp_path: Path) -> None:
    with LocalHub(tmp_path) as first, LocalHub(tmp_path) as second:
        apis = [HfApi(hub.endpoint, token=hub.token) for hub in (first, second)]
        apis[0].create_repo("local/shared")
        failures: list[Exception] = []

        def commit(api: HfApi, name: str) -> None:
            try:
                for step in range(10):
                    api.create_commit(
                        "local/shared",
                        [CommitOperationAdd(f"{name}-{step}.txt", b"x")],
                        commit_message=f"{name} {step}",
                    )
            except HfHubHTTPError as error:
                failures.append(error)

        threads = [threading.Thread(target=commit, args=(apis[index % 2], f"writer{index}")) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(list(apis[1].list_repo_commits("local/shared"))) == 41
        assert len(apis[0].list_repo_files("local/shared")) == 41
    check_whole(tmp_path)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_program_prints_its_endpoint_and_ends_on_a_signal(tmp_path: Path, stop: signal.Signals) -> None:
    with server(tmp_path) as (process, endpoint, token):
        assert endpoint.startswith("http://127.0.0.1:")
        assert HfApi(endpoint, token=token).whoami()["name"] == "local"
        process.send_signal(stop)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert os.listdir(tmp_path / "tmp") == []  # noqa: PTH208
    assert (tmp_path / "users.json").stat().st_mode & 0o777 == 0o600


def test_starting_imports_no_client() -> None:
    program = (
        "import time, sys; start = time.process_time(); import hubmerge.localhub;"
        "print(time.process_time() - start);"
        "print([name for name in ('huggingface_hub', 'transformers', 'torch', 'numpy') if name in sys.modules])"
    )
    seconds, imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split("\n")[:2]
    assert float(seconds) < 2
    assert imported == "[]"


def test_large_files_are_streamed(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(200_000_000)
    with server(tmp_path / "hub") as (process, endpoint, token):
        api = HfApi(endpoint, token=token)
        api.create_repo("local/large")
        before = peak_bytes(process.pid)
        api.upload_file(path_or_fileobj=large, path_in_repo="large.bin", repo_id="local/large")
        down = Path(api.hf_hub_download("local/large", "large.bin", cache_dir=tmp_path / "cache"))
        assert down.stat().st_size == 200_000_000
        assert peak_bytes(process.pid) - before < 40_000_000


def peak_bytes(process: int) -> int:
    """Return the peak resident memory of a process in bytes."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("only Linux tells the peak memory of another process")
    return int(next(line for line in status.read_text().splitlines() if "VmHWM" in line).split()[1]) * 1024


def test_folders_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file, users = tmp_path / "file", tmp_path / "hub" / "users.json"
    file.write_text("")
    users.parent.mkdir()
    users.write_text('{"users": []}')
    for root, place in ((file, file), (users.parent, users)):
        with pytest.raises(MachineError) as caught:
            LocalHub(root)
        assert caught.value.context.file == str(place)
