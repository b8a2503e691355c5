"""Target repos that a run refuses: a clear message, exit status 3, nothing published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]


@pytest.mark.parametrize("command", ["run", "plan"])
def test_missing_target_without_a_token(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    repo = repo_name("target")
    status, _, errors = hubmerge(command, stage.write(tmp_path, stage.recipe(repo)), "--quiet")
    assert status == 3
    assert errors.startswith(f"hubmerge: target repo {repo}: not visible on ")
    assert "hint: run `hf auth login`, or set HF_TOKEN" in errors
    assert "a run creates a missing repo" in errors


def test_target_with_foreign_files(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo = repo_name("theirs")
    api = HfApi()
    api.create_repo(repo)
    api.upload_file(repo_id=repo, path_in_repo="weights.bin", path_or_fileobj=b"theirs")
    head = api.model_info(repo).sha
    status, _, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)))
    assert status == 3
    assert "weights.bin" in errors
    assert api.model_info(repo).sha == head


def test_target_with_another_stream(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    repo, names = repo_name("merged"), tuple(stage.towers)
    assert hubmerge("run", stage.write(tmp_path, stage.recipe(repo, entries=names[:2], evaluate=None)))[0] == 0
    head = HfApi().model_info(repo).sha
    entries = [{"model": stage.towers[name], "name": name} for name in names[:2]]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"entries": names[1:]}, f"step-01 merged {stage.towers[names[0]]} at "),
        ({"entries": names[:1]}, "an entry was removed from the recipe"),
        ({"parameters": {"alpha": 0.2}}, "its parameters differ from the recipe: alpha"),
        ({"merge_method": "weight_average"}, "its merge method is opcm; the recipe has weight_average"),
        ({"base_model": stage.towers[names[2]]}, f"its base model is {stage.base} at "),
        ({"out_dtype": "bfloat16"}, "but all steps depend on another setting"),
        (
            {"models": [entries[0], {**entries[1], "parameters": {"alpha": 0.2}}]},
            "but the steps from step-02 on depend on another setting",
        ),
    ]
    for changes, expected in wrong:
        recipe = stage.recipe(repo, **{"evaluate": None, "entries": names[:2], **changes})
        status, _, errors = hubmerge("run", stage.write(tmp_path, recipe))
        assert status == 3, changes
        assert repo in errors
        assert expected in errors
    assert HfApi().model_info(repo).sha == head
