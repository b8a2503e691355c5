"""A stream published by version 0.1.0 extends and verifies with this version: see `tests/fixtures/README.md`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from hubmerge.localhub import LocalHub

ARCHIVE = Path(__file__).resolve().parents[1] / "fixtures" / "stream-0.1.0.tar.xz"
METHODS = ("opcm", "ties", "task_arithmetic")
NAMED_AFTER_THE_REPO = {"README.md", "hubmerge.yaml", "hubmerge.lock.yaml", "hubmerge.json", ".gitattributes"}
VARIES = {"recipe_digest", "versions", "seconds", "digest"}
PICTURE = "accuracy_matrix.png"  # its bytes depend on the version of matplotlib


class OlderHub:
    """The Hub of version 0.1.0 on a port of its own, and a command line pointed at it."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder = folder
        self.api = HfApi(endpoint=hub.endpoint, token=hub.token)
        places = {"HF_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
        self._environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, **places}

    def hubmerge(self, *arguments: str | Path) -> str:
        """Run the command line and return its output; it must succeed."""
        command = [sys.executable, "-m", "hubmerge", *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self, repo: str, revision: str) -> dict[str, str]:
        """The content digests of a revision's files, but for those that hold the repo's own name."""
        found = {}
        for entry in self.api.list_repo_tree(repo, revision=revision, recursive=True):
            if hasattr(entry, "blob_id") and entry.path not in NAMED_AFTER_THE_REPO | {PICTURE}:
                found[entry.path] = entry.lfs.sha256 if entry.lfs else entry.blob_id
        return found

    def report(self, repo: str) -> Any:
        """The report of a repo, without what differs between runs of one stream."""
        path = self.api.hf_hub_download(repo, "hubmerge.json", cache_dir=self.folder / "reports")
        return _without_varying(json.loads(Path(path).read_text(encoding="utf-8")))


def _without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_varying(inner) for key, inner in value.items() if key not in VARIES}
    return [_without_varying(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OlderHub]:
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    hub = LocalHub(folder / "hub").start()
    try:
        yield OlderHub(folder, hub)
    finally:
        hub.stop()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [1, 3])
def test_its_steps_verify(older: OlderHub, method: str, step: int, tmp_path: Path) -> None:
    release = f"local/{method.replace('_', '-')}-3@step-{step:02d}"
    output = older.hubmerge("verify", release, "--work-dir", tmp_path)
    assert "differs" not in output
    assert "unknown" not in output


@pytest.mark.parametrize("method", METHODS)
def test_it_extends_to_the_same_weights_and_digests(older: OlderHub, method: str, tmp_path: Path) -> None:
    name = f"local/{method.replace('_', '-')}"
    older.hubmerge("run", older.folder / "recipes" / f"{method}.yaml", "--work-dir", tmp_path / "work")
    for step in (1, 2, 3):
        revision = f"step-{step:02d}"
        assert older.files(f"{name}-2", revision) == older.files(f"{name}-3", revision)
    # Every state digest, weight digest, norm and score of all three steps.
    assert older.report(f"{name}-2") == older.report(f"{name}-3")
    older.hubmerge("verify", f"{name}-2@step-03", "--work-dir", tmp_path / "verify")
