"""Streams and parts whose recipe chooses the read-out: combined, scored without each entry, and merged in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hubmerge as api
from hubmerge.report.report import RunReport
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[[str], str]

CHOOSE: list[dict[str, Any]] = [{"method": "sums", "parameters": {"scaling": 40.0}}, {"method": "wudi"}]


def with_choice(stage: Stage, repo: str | None, *names: str) -> dict[str, Any]:
    recipe = stage.recipe(repo, entries=names, merge_method="wudi")
    held_out = {
        "name": "held-out",
        "kind": "zero-shot-image-classification",
        "dataset": {"path": stage.datasets[names[0]], "split": "train"},
        "validation": True,
    }
    recipe["evaluate"]["tasks"].append(held_out)
    return {**recipe, "read": {"choose": CHOOSE, "on": "held-out"}}


def report_in(folder: Path) -> RunReport:
    return RunReport.from_json((folder / "hubmerge.json").read_text(encoding="utf-8"))


def test_parts_leave_the_choice_to_the_whole(stage: Stage) -> None:
    recipe = with_choice(stage, None, *stage.towers)
    part = api.load_part(recipe, "1/2").recipe
    assert part.read is None
    assert part.evaluate is None


@pytest.mark.slow
def test_a_choice_in_combined_streams(stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names) -> None:
    first, second, third = stage.towers
    one, two, out = repo_name("one"), repo_name("two"), tmp_path / "both"
    for repo, names in ((one, (first, second)), (two, (third,))):
        status, output, errors = hubmerge("run", stage.write(tmp_path, with_choice(stage, repo, *names)))
        assert status == 0, output + errors
    status, output, errors = hubmerge("inspect", one, "--leave-one-out", "--work-dir", tmp_path / "inspected")
    assert status == 0, output + errors
    status, output, errors = hubmerge("combine", one, two, "--out", out, "--work-dir", tmp_path / "combined")
    assert status == 0, output + errors
    report = report_in(out)
    assert [task.name for task in report.tasks] == [first, second, third]
    read = report.steps[-1].read
    assert read is not None
    assert read.task == "held-out"
    assert read.dataset == stage.datasets[first]
    status, output, errors = hubmerge("verify", out, "--work-dir", tmp_path / "verified")
    assert status == 0, output + errors


@pytest.mark.slow
def test_a_choice_after_parts(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    path = stage.write(tmp_path, with_choice(stage, None, *stage.towers))
    folders = [tmp_path / "part-1", tmp_path / "part-2"]
    for number, folder in enumerate(folders, start=1):
        work = tmp_path / f"work-{number}"
        status, output, errors = hubmerge("run", path, "--part", f"{number}/2", "--out", folder, "--work-dir", work)
        assert status == 0, output + errors
        assert f"part {number}/2 is not scored" in output + errors
        assert report_in(folder).steps[-1].read is None
    whole = tmp_path / "whole"
    options = ("--recipe", path, "--out", whole, "--work-dir", tmp_path / "work-1")
    status, output, errors = hubmerge("combine", *folders, *options)
    assert status == 0, output + errors
    assert report_in(whole).steps[-1].read is not None
    status, output, errors = hubmerge("verify", whole, "--work-dir", tmp_path / "verified")
    assert status == 0, output + errors
