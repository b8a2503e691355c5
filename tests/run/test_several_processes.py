"""Runs in several processes connected by gloo: equal files, and a common end when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save_file

from hubmerge.support.interrupts import STOPPING
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
PATIENCE = 120


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


HUBMERGE = (sys.executable, "-m", "hubmerge")


def start(
    arguments: list[str], count: int, output: Path, program: Sequence[str] = HUBMERGE
) -> list[subprocess.Popen[bytes]]:
    """Start processes with their rank and the address of the first one, as a launcher does."""
    port = free_port()
    processes = []
    for rank in range(count):
        environment = {
            **os.environ,
            "ACCELERATE_USE_CPU": "1",
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        with (output / f"out{rank}").open("wb") as out, (output / f"err{rank}").open("wb") as err:
            processes.append(subprocess.Popen([*program, *arguments], env=environment, stdout=out, stderr=err))
    return processes


def ends(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    try:
        return [process.wait(PATIENCE) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def weights(repo: str) -> dict[str, list[dict[str, str]]]:
    """Return the digests of weights and states of all steps in the newest report."""
    report = json.loads(Path(hf_hub_download(repo, "hubmerge.json")).read_text())
    return {"steps": [{**step["files"], "state": step.get("state_digest")} for step in report["steps"]]}


@pytest.fixture(scope="module")
def expected(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, str]]]:
    """Return the digests that one process publishes."""
    from hubmerge.cli.main import main

    folder = tmp_path_factory.mktemp("alone")
    recipe = stage.write(folder, stage.recipe("local/by-one-process", evaluate=None))
    assert main(["run", str(recipe), "--work-dir", str(folder / "work"), "--quiet"]) == 0
    return weights("local/by-one-process")


def launch(recipe: Path, work: Path) -> list[dict[str, Any]]:
    """Run a recipe in two processes with `accelerate launch`, and return the events of the run."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launcher += ["--main_process_port", str(free_port()), "-m", "hubmerge"]
    done = subprocess.run(
        [*launcher, "run", str(recipe), "--work-dir", str(work), "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_accelerate_launch_gives_equal_bytes(
    stage: Stage, expected: dict[str, list[dict[str, str]]], tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo = repo_name("merged")
    events = launch(stage.write(tmp_path, stage.recipe(repo, evaluate=None)), tmp_path / "work")
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3], "only the first speaks"
    assert weights(repo) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys", [{"merge_method": "wudi"}, {"parameters": {"others": "mean"}}, {"merge_method": "model_stock"}]
)
def test_methods_that_read_states_and_joint_ones_give_equal_bytes(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], keys: dict[str, Any]
) -> None:
    one, two = repo_name("one"), repo_name("two")
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(one, evaluate=None, **keys)))[0] == 0
    launch(stage.write(tmp_path, stage.recipe(two, evaluate=None, **keys)), tmp_path / "work-of-two")
    assert weights(one) == weights(two)


def test_bad_checkpoint_ends_all_processes_with_one_message(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo, bad = repo_name("merged"), repo_name("bad")
    names = tuple(stage.towers)
    folder = Path(hf_hub_download(stage.towers[names[2]], "model.safetensors")).parent
    hf_hub_download(stage.towers[names[2]], "config.json")
    tensors = load_file(folder / "model.safetensors")
    broken = sorted(tensors)[-1]
    tensors[broken].view(-1)[3] = torch.nan
    (tmp_path / "bad").mkdir()
    save_file(tensors, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "bad" / "config.json").write_bytes((folder / "config.json").read_bytes())
    HfApi().create_repo(bad)
    HfApi().upload_folder(repo_id=bad, folder_path=tmp_path / "bad")
    models = [{"model": stage.towers[name], "name": name} for name in names[:2]]
    recipe = stage.write(tmp_path, stage.recipe(repo, models=[*models, {"model": bad}], evaluate=None))
    processes = start(["run", str(recipe), "--work-dir", str(tmp_path / "work"), "--quiet"], 2, tmp_path)
    assert ends(processes) == [4, 4]
    message = (tmp_path / "err0").read_text()
    assert message.count("hubmerge: ") == 1
    assert bad in message
    assert broken in message
    assert "not finite" in message
    assert not (tmp_path / "err1").read_text()
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01", "step-02"]
    status, output, _ = hubmerge("run", stage.write(tmp_path, stage.recipe(repo, models=models, evaluate=None)))
    assert status == 0
    assert "nothing to do" in output


def test_run_continues_after_one_process_was_killed(
    stage: Stage,
    expected: dict[str, list[dict[str, str]]],
    hubmerge: Command,
    tmp_path: Path,
    repo_name: Callable[..., str],
) -> None:
    repo = repo_name("merged")
    begun = stage.recipe(repo, entries=tuple(stage.towers)[:1], evaluate=None)
    assert hubmerge("run", stage.write(tmp_path, begun))[0] == 0
    [lock] = (tmp_path / "work").glob("*/lock.yaml")
    before = lock.stat().st_mtime_ns
    recipe = stage.write(tmp_path, stage.recipe(repo, evaluate=None))
    processes = start(["run", str(recipe), "--work-dir", str(tmp_path / "work"), "--quiet"], 2, tmp_path)
    deadline = time.monotonic() + PATIENCE
    # The processes are connected, and the first one is about to begin step 2.
    while lock.stat().st_mtime_ns == before and time.monotonic() < deadline:
        assert processes[0].poll() is None, (tmp_path / "err0").read_text()
        time.sleep(0.005)
    processes[1].send_signal(signal.SIGKILL)
    assert ends(processes) == [5, -signal.SIGKILL]
    message = (tmp_path / "err0").read_text()
    assert message.count("hubmerge: ") == 1
    assert "another process of this run exited unexpectedly" in message
    assert "hint: " in message
    assert [ref.name for ref in HfApi().list_repo_refs(repo).tags] == ["step-01"]
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert weights(repo) == expected


@pytest.mark.slow
@pytest.mark.parametrize("receivers", [(0, 1), (0,), (1,)])
def test_an_interrupt_ends_all_processes_without_tracebacks(
    stage: Stage,
    expected: dict[str, list[dict[str, str]]],
    hubmerge: Command,
    tmp_path: Path,
    repo_name: Callable[..., str],
    receivers: tuple[int, ...],
) -> None:
    """A Ctrl-C reaches every process of the terminal; a scheduler may send its signal to one."""
    repo = repo_name("merged")
    recipe = stage.write(tmp_path, stage.recipe(repo, evaluate=None))
    processes = start(["run", str(recipe), "--work-dir", str(tmp_path / "work"), "--json"], 2, tmp_path)
    deadline = time.monotonic() + PATIENCE
    while "read headers" not in (tmp_path / "out0").read_text() and time.monotonic() < deadline:
        assert processes[0].poll() is None, (tmp_path / "err0").read_text()
        time.sleep(0.005)
    for rank in receivers:
        processes[rank].send_signal(signal.SIGINT)
    assert ends(processes) == [130, 130]
    assert (tmp_path / "err0").read_text() == (f"{STOPPING}\n" if 0 in receivers else "")
    assert (tmp_path / "err1").read_text() == ""
    assert '"code": "interrupted"' in (tmp_path / "out0").read_text()
    status, _, errors = hubmerge("run", recipe)
    assert status == 0, errors
    assert weights(repo) == expected


def test_other_commands_are_refused_in_several_processes(stage: Stage, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None))
    processes = start(["plan", str(recipe)], 2, tmp_path)
    assert ends(processes) == [2, 2]
    assert "plan works in one process" in (tmp_path / "err0").read_text()
    assert not (tmp_path / "err1").read_text()


def test_connected_process_ends_at_once(tmp_path: Path) -> None:
    """Skip the end of the interpreter, in which a thread of gloo may abort the process, without losing output."""
    script = tmp_path / "ending.py"
    script.write_text(
        "import atexit, sys\n"
        "from hubmerge.cli import launch\n"
        "atexit.register(print, 'the end of the interpreter')\n"
        "def work(processes):\n"
        "    print('worked', end='')\n"
        "    return 4\n"
        "sys.exit(launch.run_first(lambda work: work(), work))\n"
    )
    (process,) = start([], 1, tmp_path, [sys.executable, str(script)])
    assert ends([process]) == [4]
    assert (tmp_path / "out0").read_text() == "worked"
    assert not (tmp_path / "err0").read_text()
