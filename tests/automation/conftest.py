"""Source repos that tests change: new repos with the weights of the small stream, and recipes over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stage import Stage

__all__ = ["Sources", "sources"]


def hub_client() -> Any:
    """Return the client, imported late because it reads HF_ENDPOINT on import."""
    from huggingface_hub import HfApi

    return HfApi()


@dataclass(frozen=True)
class Sources:
    """Repos below one prefix, each with the weights of one tower of the small stream."""

    stage: Stage
    prefix: str
    folder: Path

    def push(self, name: str, tower: int = 0) -> str:
        """Put the weights of a tower into a repo, made if it is not there, and return the commit."""
        api, repo = hub_client(), self.repo(name)
        api.create_repo(repo, exist_ok=True)
        weights = self.stage.folder / "towers" / list(self.stage.towers)[tower]
        return str(api.upload_folder(repo_id=repo, folder_path=weights).oid)

    def repo(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def name(self, name: str) -> str:
        """Return the name of the stream entry of a repo."""
        return self.repo(name).split("/")[1]

    @property
    def target(self) -> str:
        return f"{self.prefix}.merged"

    def recipe(self, models: list[dict[str, Any]] | None = None, *, scored: bool = False, **changes: Any) -> Path:
        """Write a recipe over all repos below the prefix, or over `models`; `scored` on the task of the first."""
        name, dataset = next(iter(self.stage.datasets.items()))
        task = {
            "name": "first",
            "model": self.name("first"),
            "kind": "zero-shot-image-classification",
            "dataset": {"path": dataset, "max_examples": 8},
        }
        found = models or [{"query": f"{self.prefix}-*"}]
        evaluate = {"tasks": [task]} if scored else None
        written = self.stage.recipe(self.target, entries=(name,), models=found, **changes) | {"evaluate": evaluate}
        return self.stage.write(self.folder, {key: value for key, value in written.items() if value is not None})

    def titles(self) -> list[str]:
        """Return the titles of the target's commits, newest first, without the empty first one."""
        api = hub_client()
        if not api.repo_exists(self.target):
            return []
        titles = [commit.title for commit in api.list_repo_commits(self.target)]
        return [title for title in titles if title.startswith("step-")]

    def tags(self) -> list[str]:
        return [ref.name for ref in hub_client().list_repo_refs(self.target).tags]


@pytest.fixture
def sources(stage: Stage, repo_name: Callable[..., str], tmp_path: Path) -> Sources:
    return Sources(stage, repo_name("source"), tmp_path)
