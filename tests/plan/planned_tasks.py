"""Small datasets of pictures, and a plan of a recipe with given tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
PICTURES = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green", "white")]
PICTURE, NUMBER, WORD = datasets.Image(), datasets.Value("int64"), datasets.Value("string")
LABEL = datasets.ClassLabel(names=["a", "b"])


def write(folder: Path, label: Any, labels: list[Any], *, split: str = "test", image: Any = PICTURE) -> str:
    """Write a Parquet split of a local dataset, and return its path."""
    images = PICTURES[: len(labels)] if image == PICTURE else ["x.png"] * len(labels)
    features = datasets.Features({"image": image, "label": label})
    folder.mkdir(exist_ok=True)
    rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    rows.to_parquet(folder / f"{split}.parquet")
    return f"./{folder.name}"


@pytest.fixture
def planned(stage: Stage, hubmerge: Command, tmp_path: Path) -> Callable[..., tuple[int, str, list[str]]]:
    """Return a function that plans a recipe of these tasks: exit status, errors, lines of the recipe."""

    def plan(*tasks: dict[str, Any], command: str = "plan", **changes: Any) -> tuple[int, str, list[str]]:
        numbered = [
            {"name": f"t{number}", "kind": "zero-shot-image-classification", **task}
            for number, task in enumerate(tasks)
        ]
        recipe = stage.recipe(None, evaluate={"tasks": numbered}, **changes)
        path = stage.write(tmp_path, recipe)
        status, output, errors = hubmerge(command, path, *(["--verbose"] if command == "plan" else []))
        return status, errors if status else output, path.read_text().splitlines()

    return plan
