"""A small untrained stream on the embedded Hub, and recipes for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.cli.main import main
from tests.run_launcher import RunLauncher


class Stage:
    """Repos of the stream, and recipes for them."""

    def __init__(self, folder: Path, base: str, towers: dict[str, str], datasets: dict[str, str]) -> None:
        self.folder = folder
        self.base = base
        self.towers = towers
        self.datasets = datasets

    def recipe(self, repo: str | None, *, entries: tuple[str, ...] | None = None, **changes: Any) -> dict[str, Any]:
        names = entries if entries is not None else tuple(self.towers)
        recipe: dict[str, Any] = {
            "merge_method": "opcm",
            "base_model": self.base,
            "models": [{"model": self.towers[name], "name": name} for name in names],
            "evaluate": {
                "tasks": [
                    {
                        "name": name,
                        "kind": "zero-shot-image-classification",
                        "dataset": {"path": self.datasets[name], "max_examples": 8},
                    }
                    for name in names
                ]
            },
        }
        if repo is not None:
            recipe["publish"] = {"repo": repo}
        return {key: value for key, value in {**recipe, **changes}.items() if value is not None}

    def fetch(self) -> list[Path]:
        """Download the models of the stream into the Hub cache, and return the folders of its checkpoints."""
        from huggingface_hub import snapshot_download

        snapshot_download(self.base)
        return [Path(snapshot_download(repo)) for repo in self.towers.values()]

    def write(self, folder: Path, recipe: dict[str, Any]) -> Path:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        return path


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    from huggingface_hub import HfApi

    from hubmerge.demo.make_stream import make_tiny_repos

    folder = tmp_path_factory.mktemp("stage")
    stream = make_tiny_repos(folder, tasks=3)
    api = HfApi()
    for repo in stream.repos():
        api.create_repo(repo.repo, repo_type=repo.kind, exist_ok=True)
        api.upload_folder(repo_id=repo.repo, folder_path=repo.folder, repo_type=repo.kind)
    names = [task.name for task in stream.tasks]
    return Stage(
        folder,
        stream.base.repo,
        {name: stream.tower(name).repo for name in names},
        {name: stream.dataset(name).repo for name in names},
    )


@pytest.fixture(scope="session")
def launcher() -> Iterator[RunLauncher]:
    """Return the launcher of runs in separate processes."""
    with RunLauncher({"HF_ENDPOINT": os.environ["HF_ENDPOINT"]}) as launcher:
        yield launcher


@pytest.fixture
def hubmerge(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Return the command line in this process: `hubmerge("run", recipe)` gives exit status, output and error output."""

    def call(command: str, *arguments: str | Path) -> tuple[int, str, str]:
        extra = ["--work-dir", str(tmp_path / "work")] if command == "run" else []
        status = main([command, *extra, *map(str, arguments)])
        output = capsys.readouterr()
        return status, output.out, output.err

    return call
