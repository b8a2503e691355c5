"""A small untrained stream in folders, a recipe over it, and a way to write studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hubmerge.demo.make_stream import make_tiny_repos


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the recipe of a stream of four, all local."""
    folder = tmp_path_factory.mktemp("study")
    stream = make_tiny_repos(folder / "stream", tasks=4)
    names = stream.settings.tasks
    recipe = {
        "merge_method": "opcm",
        "base_model": str(stream.base.folder),
        "models": [{"model": str(stream.tower(name).folder), "name": name} for name in names],
        "publish": {"repo": "nobody/nothing"},
        "evaluate": {
            "tasks": [
                {
                    "name": name,
                    "kind": "zero-shot-image-classification",
                    "dataset": {"path": str(stream.dataset(name).folder), "max_examples": 12},
                }
                for name in names
            ]
        },
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture
def write_study(tmp_path: Path, recipe_file: Path) -> Callable[..., Path]:
    """Write a study of that recipe."""

    def write(name: str = "study", **keys: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"recipe": str(recipe_file), **keys}, sort_keys=False), encoding="utf-8")
        return path

    return write
