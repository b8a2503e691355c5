"""Heads of the checkpoints of all parts are beside the combined model, under the names of their entries there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubmerge
from tests.layouts.classifiers import BERT
from tests.layouts.test_heads import models

Pair = Callable[..., list[Path]]

__all__ = ["models"]


@pytest.mark.slow
@pytest.mark.usefixtures("empty_cache")
def test_heads_of_entries_with_one_name_are_kept_apart(models: Pair, tmp_path: Path) -> None:
    base, *checkpoints = models(BERT)
    work: dict[str, Any] = {"work_dir": tmp_path / "work", "progress": None}
    folders = [tmp_path / "first", tmp_path / "second"]
    for checkpoint, folder in zip(checkpoints, folders, strict=True):
        recipe = {
            "merge_method": "wudi",
            "base_model": str(base),
            "models": [{"model": str(checkpoint), "name": "task"}],
        }
        hubmerge.StepRun(recipe, out=folder, state=True, **work).finish()
    hubmerge.combine(folders, out=tmp_path / "both", **work)
    described = [json.loads((tmp_path / "both" / "heads" / f"{name}.json").read_text()) for name in ("task", "task-2")]
    assert [one["entry"] for one in described] == ["task", "task-2"]
    assert described[0]["labels"] != described[1]["labels"]
    verdict = hubmerge.verify(str(tmp_path / "both"), progress=None)
    assert verdict.verified, str(verdict)
    assert hubmerge.load_head(tmp_path / "both", "task-2").config.num_labels == len(described[1]["labels"])
