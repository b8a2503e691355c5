"""Runs with HF_HUB_OFFLINE=1: no request is sent, and what is missing is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from hubmerge.hub import fetch
from hubmerge.hub.checked_files import Kind
from hubmerge.hub.offline import cached_files, set_aside_damaged_files
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]


def offline(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line with an endpoint that nobody answers."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "hubmerge", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_full_cache_and_a_lock_are_enough(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None))
    assert hubmerge("lock", recipe)[0] == 0
    assert hubmerge("run", recipe, "--out", tmp_path / "online")[0] == 0
    planned = offline("plan", recipe)
    assert planned.returncode == 0, planned.stderr
    done = offline("run", recipe, "--out", tmp_path / "offline", "--work-dir", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    names = [path.name for path in (tmp_path / "online").glob("*.safetensors")]
    assert names
    for name in names:
        assert (tmp_path / "offline" / name).read_bytes() == (tmp_path / "online" / name).read_bytes()
    verified = offline("verify", tmp_path / "offline", "--work-dir", tmp_path / "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "recomputed: the same bytes" in verified.stdout


@pytest.mark.slow
def test_a_published_step_in_the_cache_is_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str]
) -> None:
    repo = repo_name("target")
    recipe = stage.write(tmp_path, stage.recipe(repo))
    assert hubmerge("lock", recipe)[0] == 0
    assert hubmerge("run", recipe)[0] == 0
    first = f"{repo}@step-02"
    missing = offline("verify", first)
    assert missing.returncode == 3
    assert f"model {repo} at revision step-02: HF_HUB_OFFLINE is set, and the Hub cache does not have" in missing.stderr
    snapshot_download(repo, revision="step-02")
    verified = offline("verify", first, "--work-dir", tmp_path / "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "not compared, because they are on the Hub: tags, earlier commits and published states" in verified.stdout
    assert "recomputed: the same bytes" in verified.stdout
    planned = offline("plan", recipe)
    assert planned.returncode == 0, planned.stderr
    ran = offline("run", recipe, "--work-dir", tmp_path / "other")
    assert ran.returncode == 3
    assert f"publishing to {repo} needs the Hub, and HF_HUB_OFFLINE is set" in ran.stderr


def test_a_step_that_is_partly_in_the_cache_is_not_called_different(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of other kinds of checks: a damaged file is found, a missing one is named with a command to fetch it."""
    repo = repo_name("target")
    recipe = stage.write(tmp_path, stage.recipe(repo, entries=tuple(stage.towers)[:1], evaluate=None))
    assert hubmerge("run", recipe)[0] == 0
    folder = Path(snapshot_download(repo))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, output, errors = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert status == 7, output + errors
    assert "unknown  state: the state after step 1 cannot be read without the Hub" in output
    assert "differs" not in output
    weights = next(folder.glob("*.safetensors"))
    weights.unlink()
    status, _, errors = hubmerge("verify", repo, "--quick", "--work-dir", tmp_path / "verify")
    assert status == 3
    assert f"HF_HUB_OFFLINE is set, and the Hub cache lacks {weights.name}" in errors
    assert f"HF_HUB_OFFLINE=0 hf download {repo} --revision {folder.name}" in errors


def test_folders_are_verified(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    recipe = stage.write(tmp_path, stage.recipe(None, entries=tuple(stage.towers)[:2], evaluate=None))
    out = tmp_path / "out"
    assert hubmerge("run", recipe, "--out", out)[0] == 0
    status, output, errors = hubmerge("verify", out, "--work-dir", tmp_path / "verify")
    assert status == 0, output + errors
    assert f"{out}: step 2\n" in output
    assert "recomputed: the same bytes" in output
    (out / "notes.py").write_text("")
    (out / "history" / "step-01.json").write_text("{}")
    status, output, _ = hubmerge("verify", out, "--quick", "--work-dir", tmp_path / "verify")
    assert status == 6
    assert "differs  files: notes.py is not in the list of files in the report" in output
    assert "differs  report: history/step-01.json does not match the digest in hubmerge.json" in output
    for place in (tmp_path / "nowhere", tmp_path):
        status, _, errors = hubmerge("verify", place)
        assert status == 2
        assert "hint: name a folder that `hubmerge run --out` wrote" in errors


def test_without_a_lock_the_reference_is_named(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, _, errors = hubmerge("plan", stage.write(tmp_path, stage.recipe(None, evaluate=None)))
    assert status == 3
    assert f"model {stage.base} at revision main: HF_HUB_OFFLINE is set, and no lock pins the commit" in errors


def test_the_cache_lists_what_the_hub_lists(stage: Stage) -> None:
    stage.fetch()
    commit = fetch.resolve_commit("model", stage.base, None)
    listed, cached = fetch.list_files(stage.base, commit), cached_files(stage.base, commit)
    assert cached == listed
    assert [(file.sha256, file.blob_id) for file in cached] == [(file.sha256, file.blob_id) for file in listed]


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_damaged_files_of_a_commit_are_set_aside(stage: Stage, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    repo = stage.base if kind == "model" else next(iter(stage.datasets.values()))
    folder = Path(snapshot_download(repo, repo_type=kind))
    set_aside_damaged_files(repo, folder.name, kind)
    assert caplog.messages == []
    file = min((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    file.resolve().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    set_aside_damaged_files(repo, folder.name, kind)
    assert len(caplog.messages) == 1
    snapshot_download(repo, repo_type=kind)
    assert file.read_bytes() == content
