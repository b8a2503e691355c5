"""A report, recipe or lock that cannot be read gives a clear verdict, and a run refuses to extend it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hubmerge.report.report import RunReport
from tests.stage import Stage
from tests.verify.published import Command, Copy, Verify, published

REPORTS = {
    "nothing": (b"", "not JSON"),
    "a list": (b"[]", "format version None is unknown"),
    "numbers as steps": (b'{"version":1,"steps":[1,2]}', "is missing"),
    "empty steps": (b'{"version":1,"steps":[{}]}', "is missing"),
    "deep": (b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}", "nested more than 64 deep"),
    "very deep": (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested more than 64 deep"),
    "a huge integer": (b'{"version":' + b"1" * 5000 + b"}", "is too large"),
    "no UTF-8": (b'{"version":"\xff\xfe"}', "format version"),
    "a newer version": (b'{"version":99}', "format version 99 is unknown"),
    "a repeated key": (b'{"version":1,"version":2}', "the key 'version' is repeated"),
    "half a surrogate": (b'{"version":2,"merge_method":"\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_an_unreadable_report_gives_a_verdict(copy: Copy, verify: Verify, name: str) -> None:
    content, cause = REPORTS[name]
    status, output, errors = verify(copy({"hubmerge.json": content}))
    assert status == 6, errors
    assert "differs  report: hubmerge.json" in output
    assert cause in output
    assert "NOT verified" in output
    assert "internal error" not in output + errors


def changed(values: dict[str, object], kind: str) -> str:
    steps: list[dict[str, object]] = values["steps"]  # type: ignore[assignment]
    match kind:
        case "NaN":
            steps[0]["scale"] = float("nan")
        case "a name that is a number":
            steps[0]["name"] = 5
        case "steps repeated":
            values["steps"] = steps * 20
        case "steps in another order":
            values["steps"] = steps[::-1]
        case "no steps":
            values["steps"] = []
        case "step 0":
            steps[0]["step"] = 0
    return json.dumps(values)


KINDS = ("NaN", "a name that is a number", "steps repeated", "steps in another order", "no steps", "step 0")


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_with_odd_values_gives_a_verdict(original: str, copy: Copy, verify: Verify, kind: str) -> None:
    content = changed(json.loads(published(original, "hubmerge.json")), kind).encode()
    status, output, errors = verify(copy({"hubmerge.json": content}))
    assert status == 6, errors
    assert "differs  report: hubmerge.json" in output
    assert "internal error" not in output + errors


UNREADABLE = (b"", b"\x00\x01", b"- 1\n", b"version: 1\nmodels: null\n", b"\xff\xfe", b"a: " + b"[" * 3000)


@pytest.mark.parametrize("name", ["hubmerge.lock.yaml", "hubmerge.yaml"])
def test_an_unreadable_recipe_or_lock_gives_a_verdict(copy: Copy, verify: Verify, name: str) -> None:
    from huggingface_hub import HfApi

    repo = copy({})
    for content in UNREADABLE:
        HfApi().upload_file(repo_id=repo, path_in_repo=name, path_or_fileobj=content)
        status, output, errors = verify(repo)
        assert status == 6, output + errors
        assert "differs  recipe: " in output
        assert "internal error" not in output + errors


@pytest.mark.parametrize("sealed", [True, False])
def test_a_run_refuses_to_extend_a_changed_report(
    original: str, copy: Copy, stage: Stage, hubmerge: Command, tmp_path: Path, *, sealed: bool
) -> None:
    """A score inside a step breaks its digest, a score beside the steps the seal."""
    values = json.loads(published(original, "hubmerge.json"))
    task = values["tasks"][0]["name"]
    (values["base_scores"] if sealed else values["steps"][0]["scores"])[task]["accuracy"] = 0.999
    repo = copy({"hubmerge.json": json.dumps(values).encode()})
    status, _, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)), "--work-dir", tmp_path / "work")
    assert status == 3
    what = "seal" if sealed else "digest of step-01"
    assert f"hubmerge.json was changed after it was published: its {what} does not match its content" in errors
    assert f"run `hubmerge verify {repo}`" in errors


def test_a_run_refuses_a_history_that_was_sealed_again(
    original: str, copy: Copy, stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    """Digests and seal fit each other, but not the tag of the step before."""
    from huggingface_hub import HfApi

    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    repo = copy({"hubmerge.json": published(original, "hubmerge.json", "step-02")})
    HfApi().create_tag(repo, tag="step-02")
    task = report.tasks[0].name
    forged = report.until(2).with_step(dataclasses.replace(report.steps[0], scores={task: {"accuracy": 0.999}}))
    HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=forged.to_json().encode())
    status, _, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)), "--work-dir", tmp_path / "work")
    assert status == 3
    assert "hubmerge.json was changed after it was published: its step-02 is not the one under the tag" in errors


def test_a_run_refuses_a_newest_step_that_is_not_the_one_in_its_file(
    original: str, copy: Copy, stage: Stage, hubmerge: Command, tmp_path: Path
) -> None:
    """Digests and seal fit each other, and there is no tag, but the file in `history/` has another digest."""
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    forged = report.with_step(dataclasses.replace(report.steps[-1], state_digest="sha256:" + "0" * 64))
    repo = copy({"hubmerge.json": dataclasses.replace(forged, all_files=report.all_files).to_json().encode()})
    recipe = stage.recipe(repo)
    extra = {"model": recipe["models"][0]["model"], "name": "again"}
    path = stage.write(tmp_path, {**recipe, "models": [*recipe["models"], extra]})
    status, _, errors = hubmerge("run", path, "--work-dir", tmp_path / "work")
    assert status == 3, errors
    assert "its newest step is not the one in history/step-03.json" in errors


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_run_refuses_an_unreadable_report(
    original: str, copy: Copy, stage: Stage, hubmerge: Command, tmp_path: Path, kind: str
) -> None:
    repo = copy({"hubmerge.json": changed(json.loads(published(original, "hubmerge.json")), kind).encode()})
    status, _, errors = hubmerge("run", stage.write(tmp_path, stage.recipe(repo)), "--work-dir", tmp_path / "work")
    assert status == 3
    assert "hubmerge.json" in errors


ODD_STEPS = [
    "{}",
    "null",
    "[1, 2]",
    "[null]",
    "[[]]",
    '["x"]',
    "[{}]",
    '[{"inputs": 3}]',
    '[{"inputs": [1]}]',
    '[{"step": []}]',
]


def test_no_command_fails_at_odd_steps(
    copy: Copy, stage: Stage, hubmerge: Command, verify: Verify, tmp_path: Path
) -> None:
    from huggingface_hub import HfApi

    repo = copy({})
    recipe = stage.write(tmp_path, stage.recipe(repo))
    for steps in ODD_STEPS:
        content = f'{{"version": 3, "steps": {steps}}}'.encode()
        HfApi().upload_file(repo_id=repo, path_in_repo="hubmerge.json", path_or_fileobj=content)
        status, output, errors = hubmerge("plan", recipe)
        assert status == 3, (steps, output, errors)
        assert verify(repo, "--quick")[0] == 6
    others = (("rollback", repo, "--to", "step-01"), ("outdated", recipe), ("revoke", repo, "shapes"))
    for command in (("run", recipe, "--work-dir", tmp_path / "work"), *others):
        status, output, errors = hubmerge(*command)
        assert status != 0, command
        assert "internal error" not in output + errors, command


def test_a_report_that_claims_version_1_is_checked_against_the_base_model(
    original: str, copy: Copy, verify: Verify
) -> None:
    report = RunReport.from_json(published(original, "hubmerge.json").decode())
    values = dataclasses.replace(report, version=1).to_dict()
    del values["all_files"], values["seal"]
    changes = {"hubmerge.json": json.dumps(values).encode(), "modeling.py": b"print()"}
    status, output, _ = verify(copy(changes), "--quick")
    assert status == 6
    assert "differs  files: modeling.py is not a file of this step" in output
