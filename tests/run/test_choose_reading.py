"""Read-outs that a run chooses on a validation task, and that verify recomputes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubmerge.report.reading import ReadingReport, ReadReport, best_place
from hubmerge.report.report import RunReport
from hubmerge.verify.reports import compare_reports
from tests.checks import every
from tests.stage import Stage

Command = Callable[..., tuple[int, str, str]]
Names = Callable[..., str]

CHOOSE: list[dict[str, Any]] = [
    {"method": "sums", "parameters": {"scaling": 40.0}},
    {"method": "wudi", "parameters": {"ridge": 0.5}},
    {"method": "iso_c", "parameters": {"scaling": 1.25}},
]


def with_choice(stage: Stage, repo: str | None, **changes: Any) -> dict[str, Any]:
    names = tuple(stage.towers)[:2]
    recipe = stage.recipe(repo, entries=names, merge_method="wudi", **changes)
    held_out = {
        "name": "held-out",
        "kind": "zero-shot-image-classification",
        "dataset": {"path": stage.datasets[names[0]], "split": "train"},
        "validation": True,
        "metrics": ["accuracy"],
    }
    recipe["evaluate"]["tasks"].append(held_out)
    recipe["read"] = {"choose": CHOOSE, "on": "held-out"}
    return recipe


def check_report(report: RunReport) -> ReadReport:
    """Check that the read-out of every step is the best on the validation task, and return that of the last."""
    assert report.version == 5
    for step in report.steps:
        assert step.read is not None
        assert "held-out" not in step.scores
        scores = [one.score for one in step.read.readings]
        assert step.read.chosen == best_place(scores)
        assert (step.read.task, step.read.split, step.read.scored) == ("held-out", "train", False)
    choice = report.steps[-1].read
    assert choice is not None
    return choice


def check_refusals(hubmerge: Command, folder: Path, repo: str, choose: list[str]) -> None:
    """Check that choices without a task, with one read-out or with an unfit method are refused, and nothing written."""
    wrong: tuple[tuple[tuple[Any, ...], str], ...] = (
        (("--on", "held-out"), "this key is required"),
        ((*choose[:2], "--on", "held-out"), "a choice needs two read-outs or more"),
        ((*choose, "--on", "nothing"), "there is no task"),
        ((*choose, "--choose", "ties", "--on", "held-out"), "ties cannot read the states of wudi"),
        ((*choose, "--method", "ace"), "expected either a method"),
        ((), "expected either a method"),
    )
    for bad, message in wrong:
        status, _, errors = hubmerge("read", repo, *bad, "--out", folder / "none", "--work-dir", folder / "reading")
        assert status == 2
        assert message in errors
        assert not (folder / "none").exists()


def test_the_best_read_out_is_published_and_verified(
    stage: Stage, hubmerge: Command, tmp_path: Path, repo_name: Names
) -> None:
    from huggingface_hub import hf_hub_download

    repo = repo_name("chosen")
    status, output, errors = hubmerge("run", stage.write(tmp_path, with_choice(stage, repo)))
    assert status == 0, output + errors
    text = Path(hf_hub_download(repo, "hubmerge.json")).read_text(encoding="utf-8")
    report = RunReport.from_json(text)
    assert [task.name for task in report.tasks] == list(stage.towers)[:2]
    choice = check_report(report)
    assert choice.choice is not None
    expected = f"read by     {choice.choice.text}: the best of 3 by accuracy on the task held-out\n"
    assert expected in hubmerge("inspect", repo)[1]
    out = tmp_path / "read"
    options = [item for name, value in choice.choice.parameters.items() for item in ("-p", f"{name}={value}")]
    status, output, errors = hubmerge(
        "read", repo, "--method", choice.choice.method, *options, "--out", out, "--work-dir", tmp_path / "reading"
    )
    assert status == 0, output + errors
    found, expected = load_file(hf_hub_download(repo, "model.safetensors")), load_file(out / "model.safetensors")
    assert every(torch.equal(found[name], expected[name]) for name in expected)
    listed = [f"{one['method']} {name}={value}" for one in CHOOSE for name, value in one["parameters"].items()]
    choose = [item for text in listed for item in ("--choose", text)]
    again = tmp_path / "again"
    where = ("--out", again, "--work-dir", tmp_path / "reading")
    status, output, errors = hubmerge("read", repo, *choose, "--on", "held-out", *where)
    assert status == 0, output + errors
    assert f"read by {choice.choice.text}, accuracy on held-out" in output
    reread = load_file(again / "model.safetensors")
    assert every(torch.equal(found[name], reread[name]) for name in reread)
    check_refusals(hubmerge, tmp_path, repo, choose)
    card = Path(hf_hub_download(repo, "README.md")).read_text(encoding="utf-8")
    assert "read out of the state by" in card
    assert "the best of 3 by accuracy on the task `held-out`" in card
    status, output, errors = hubmerge("verify", repo, "--work-dir", tmp_path / "verify")
    assert status == 0, output + errors
    assert "recomputed" in output


def test_a_choice_on_scored_examples_is_told_in_the_report(stage: Stage, hubmerge: Command, tmp_path: Path) -> None:
    names = tuple(stage.towers)[:2]
    recipe = stage.recipe(None, entries=names, merge_method="magmax")
    scalings = [{"method": "magmax", "parameters": {"scaling": scaling}} for scaling in (30.0, 0.5)]
    recipe["read"] = {"choose": scalings, "on": names[0], "best": "lowest"}
    work = tmp_path / "work"
    status, output, errors = hubmerge("run", stage.write(tmp_path, recipe), "--work-dir", work)
    assert status == 0, output + errors
    [path] = work.glob("*/report.json")
    last = json.loads(path.read_text(encoding="utf-8"))["steps"][-1]
    assert last["read"]["scored"] is True
    assert last["read"]["best"] == "lowest"
    scores = [one["score"] for one in last["read"]["readings"]]
    assert last["scores"][names[0]]["accuracy"] == min(scores)
    assert last["read"]["chosen"] == best_place(scores, lowest=True)
    first = json.loads(path.read_text(encoding="utf-8"))["steps"][0]
    assert any("which is scored too" in warning for warning in first["warnings"])


def choice(chosen: int, *scores: float) -> ReadReport:
    readings = tuple(ReadingReport(f"m{place}", score) for place, score in enumerate(scores))
    return ReadReport("t", "a/b", None, "train", "c", "accuracy", "highest", chosen, readings)


def test_a_choice_that_was_changed_differs() -> None:
    from tests.report.long_reports import long_report

    report = long_report(3)
    one = report.with_step(replace(report.steps[-1], read=choice(1, 0.7, 0.6)))
    assert RunReport.from_json(one.to_json()) == one
    assert RunReport.from_json(one.to_json()).version == 5
    for changed in (choice(2, 0.7, 0.6), choice(1, 0.7, 0.61), None):
        other = report.with_step(replace(report.steps[-1], read=changed))
        assert any("read" in finding.detail for finding in compare_reports(one, other) if finding.verdict == "differs")


@pytest.mark.parametrize("chosen", [0, 3])
def test_a_choice_of_no_read_out_has_none(chosen: int) -> None:
    assert choice(chosen, 0.5, 0.6).choice is None
