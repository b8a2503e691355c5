"""Models with vocabularies of their own, as folders and as repos, and their merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubmerge as api
from tests.mergekit.vocabularies import bytes_tokenizer, unigram_tokenizer, write_model, write_models

EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models of different vocabularies, and the models `same` and `swapped` with equal sizes."""
    home = write_models(tmp_path_factory.mktemp("models"))
    words = bytes_tokenizer("low lower lowest new newer newest")
    write_model(home / "same", 7, words)
    write_model(home / "swapped", 8, words)
    file = home / "swapped" / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary["e"], vocabulary["l"] = vocabulary["l"], vocabulary["e"]
    file.write_text(json.dumps(content), encoding="utf-8")
    write_model(home / "pieces", 9, unigram_tokenizer("low lower lowest"))
    return home


def written(folder: Path, recipe: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return file


def linear(*models: str | Path, **keys: Any) -> dict[str, Any]:
    return {"merge_method": "linear", "models": [{"model": str(one)} for one in models], **keys}


def merged(recipe: dict[str, Any], folder: Path) -> Path:
    api.run(written(folder, recipe), out=folder / "out", work_dir=folder / "work", progress=None).finish()
    return folder / "out"
