"""A file with several documents, published: stages on the Hub's models, one result, verified and changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.run.test_joint import Command, report_of
from tests.stage import Stage


def write(folder: Path, stage: Stage, repo: str, weight: float) -> str:
    """Write a recipe of two documents; the stage merges two towers, the result a third one into it."""
    first, second, third = list(stage.towers.values())[:3]
    tensors = {"include": ["vision_model.*"]}
    before: dict[str, Any] = {
        "name": "pair",
        "merge_method": "ties",
        "base_model": stage.base,
        "models": [{"model": model, "parameters": {"weight": weight}} for model in (first, second)],
        "parameters": {"density": 0.5},
        "tensors": tensors,
    }
    result = {
        "merge_method": "task_arithmetic",
        "form": "joint",
        "base_model": stage.base,
        "models": [{"model": "pair"}, {"model": third}],
        "parameters": {"weight": 0.5},
        "tensors": tensors,
        "publish": {"repo": repo},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump_all([before, result], sort_keys=False), encoding="utf-8")
    return str(path)


def test_the_result_of_stages_is_published_and_verified_and_a_changed_stage_is_another_recipe(
    stage: Stage, hubmerge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = "team/stages"
    monkeypatch.chdir(tmp_path)
    recipe = write(tmp_path, stage, repo, 0.5)
    status, output, errors = hubmerge("plan", recipe)
    assert status == 0, errors
    assert "stage pair (" in output
    status, output, errors = hubmerge("run", recipe, "--work-dir", "work")
    assert status == 0, errors
    report = report_of(repo)
    assert [(one["name"], len(one["models"])) for one in report["stages"]] == [("pair", 2)]
    assert report["steps"][0]["inputs"][0]["commit"] == report["stages"][0]["digest"]
    status, output, errors = hubmerge("verify", repo)
    assert status == 0, output + errors
    assert "1 stage has the weights in the report" in output
    status, output, errors = hubmerge("run", recipe)
    assert (status, len(report_of(repo)["steps"])) == (0, 1), errors
    changed = write(tmp_path, stage, repo, 0.25)
    status, _, errors = hubmerge("run", changed)
    assert status != 0
    assert "pair" in errors
    status, _, errors = hubmerge("run", changed, "--replay")
    assert status == 0, errors
    assert report_of(repo)["stages"][0]["digest"] != report["stages"][0]["digest"]
