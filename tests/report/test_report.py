"""Reports are written as JSON and read back without loss."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hubmerge.errors import HubmergeError
from hubmerge.report.file_list import FileRecord, list_step_files
from hubmerge.report.report import ModelReport, RunReport, Spread, StepReport, TaskReport, TensorSummary


def sample() -> RunReport:
    tasks = (
        TaskReport("digits", "zero-shot-image-classification", 1, "me/digits", metrics=("confusion", "accuracy")),
        TaskReport("shapes", "zero-shot-image-classification", 2, "me/shapes", metrics=("f1", "top-5")),
    )
    first = StepReport(
        1, "digits", "me/clip-digits@main", "1" * 40, 1.0, 0.1 + 0.2, 0.30000000000000004,
        TensorSummary(4, 9, Spread.of([1, 2, 4]), None), None,
        {"digits": {"accuracy": 0.75, "confusion": [[3, 1], [0, 4]]}}, 2e-8, 1.5, "c" * 64,
        {"model.safetensors": "d" * 64},
    )  # fmt: skip
    second = StepReport(
        2, "shapes", "me/clip-shapes", "2" * 40, 1.4, 0.5, 0.4,
        scores={"digits": {"accuracy": 0.5}, "shapes": {"f1": 0.25, "top-5": 1.0}},
    )  # fmt: skip
    return RunReport(
        ModelReport("openai/base", "0" * 40), "opcm", "e" * 64, {"alpha": 0.5}, tasks, (first, second),
        {"digits": {"accuracy": 0.1}, "shapes": {"f1": 0.2}}, {"digits": {"accuracy": 0.8}, "shapes": {"f1": 0.9}},
        {"hubmerge": "0.1.0"},
    )  # fmt: skip


def test_json_round_trip_is_exact_and_stable() -> None:
    report = sample()
    text = report.to_json()
    again = RunReport.from_json(text)
    assert again == report
    assert isinstance(again.steps[0].tensors.rank, Spread)
    assert isinstance(again.tasks[0].metrics, tuple)
    assert again.to_json() == text
    assert text.endswith("}\n")
    assert "0.30000000000000004" in text
    keys = list(json.loads(text))
    assert keys == sorted(keys)


def test_numbers_keep_their_type() -> None:
    """A digest is taken over the text, in which 1 and 1.0 differ."""
    report = dataclasses.replace(sample(), parameters={"scaling": 1, "alpha": 1.0, "grid": [1, 1.5], "all": True})
    step = dataclasses.replace(report.steps[0], scale=1, drift=1.0, tensors=TensorSummary(4, 9, Spread(2, 1, 3.0)))
    report = report.with_step(step)
    again = RunReport.from_json(report.to_json())
    assert again.to_json() == report.to_json()
    assert again.broken_digest() is None


def test_step_report_round_trip() -> None:
    step = sample().steps[0]
    assert StepReport.from_dict(json.loads(json.dumps(step.to_dict()))) == step


def test_matrix_uses_each_tasks_main_metric() -> None:
    matrix = sample().accuracy_matrix()
    assert matrix.value(2, "digits") == 0.5
    assert matrix.value(2, "shapes") == 0.25
    assert matrix.backward_transfer() == -0.25


def test_until_leaves_out_later_steps_and_their_tasks() -> None:
    early = sample().until(1)
    assert [step.step for step in early.steps] == [1]
    assert set(early.own_scores) == {"digits"}
    assert set(early.base_scores) == {"digits"}
    assert [task.name for task in early.tasks] == ["digits"]
    assert [step.name for step in early.with_step(sample().steps[1]).steps] == [s.name for s in sample().steps]


def test_with_step_replaces_and_sorts() -> None:
    report = sample().with_step(sample().steps[0])
    assert report.with_step(report.steps[0]) == report
    assert [step.step for step in report.steps] == [1, 2]


def test_digests_chain_the_steps_and_break_with_any_change() -> None:
    report = sample().with_step(sample().steps[0])
    assert report.broken_digest() is None
    assert RunReport.from_json(report.to_json()).broken_digest() is None
    for step, number in ((0, 1), (1, 2)):
        steps = list(report.steps)
        scale = steps[step].scale
        assert scale is not None
        steps[step] = dataclasses.replace(steps[step], scale=scale + 1e-9)
        assert dataclasses.replace(report, steps=tuple(steps)).broken_digest() == number
    changed = dataclasses.replace(report.steps[0], scale=9.0).with_digest(None)
    assert dataclasses.replace(report, steps=(changed, report.steps[1])).broken_digest() == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format version None is unknown, expected 1 or 2 or 3"),
        ('{"version": true}', "format version True is unknown"),
        ('{"version": [1]}', "format version"),
        ('{"version": 1, "seal": "a"}', "a report of version 1 has no seal"),
        ('{"version": 2, "older_steps": 1}', "a report of version 2 has no older_steps"),
        ('{"version": 3, "stages": []}', "a report of version 3 has no stages"),
        ('{"version": 4, "steps": [{"read": {}}]}', "a report of version 4 has no choice `read`"),
        ('{"version": 6, "steps": [{"read": {"more_data": []}}]}', "a report of version 6 has no more_data"),
        ('{"version": 5, "tokenizer": {}}', "a report of version 5 has no tokenizer"),
        ('{"version": 5, "stages": [{"tokenizer": {}}]}', "a report of version 5 has no tokenizer"),
        ('{"version": 1, "version": 2}', "the key 'version' is repeated"),
        ('{"version": 2, "parameters": {"x": NaN}}', "NaN is not a number of JSON"),
        ('{"version": 2, "parameters": {"x": 1e999}}', "the number 1e999 is too large"),
        ('{"version": 2, "parameters": {"x": ' + "9" * 5000 + "}}", "the integer 99999999999999999999... is too large"),
        ('{"version": 2, "parameters": {"x": 9223372036854775808}}', "9223372036854775808 is too large"),
        ('{"a":' + "[" * 1000 + "]" * 1000 + "}", "lists and objects are nested more than 64 deep"),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", "lists and objects are nested more than 64 deep"),
        ('{"version": 2, "merge_method": "\\ud800"}', "the text .* has half of a surrogate pair"),
        ('{"version": 99}', "format version 99"),
        ('{"version": 1, "surprise": 2}', "unknown key 'surprise'"),
        ('{"version": 1}', "the key 'base_model' is missing"),
        ('{"version": 1, "base_model": {"reference": "a", "commit": "b", "x": 1}}', "base_model: unknown key 'x'"),
        ('{"version": 1, "base_model": 3}', "base_model: expected a mapping, found int"),
        (
            '{"version": 1, "base_model": {"reference": 1, "commit": "b"}}',
            "base_model.reference: expected a valid string",
        ),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(HubmergeError, match=f"hubmerge.json: {message}"):
        RunReport.from_json(text)


def test_the_seal_covers_everything_but_itself() -> None:
    """Also what is in no step: tasks, scores beside the steps, versions and the list of files."""
    sealed = RunReport.from_json(sample().to_json())
    assert sealed.seal is not None
    assert not sealed.has_broken_seal
    for key, value in {
        "base_scores": {"digits": {"accuracy": 0.9}},
        "own_scores": {},
        "tasks": sealed.tasks[:1],
        "versions": {"hubmerge": "0.1.1"},
        "all_files": {"a": FileRecord("0" * 64, 1)},
        "base_model": ModelReport("openai/base", "1" * 40),
        "recipe_digest": "f" * 64,
    }.items():
        changes: dict[str, Any] = {key: value}
        assert dataclasses.replace(sealed, **changes).has_broken_seal, key
    assert dataclasses.replace(sealed, seal=None).has_broken_seal


def test_a_report_of_version_1_is_read_without_a_seal() -> None:
    values = sample().to_dict() | {"version": 1}
    for key in ("all_files", "seal", "kept_files", "kept_metadata", "older_steps"):
        del values[key]
    report = RunReport.from_json(json.dumps(values))
    assert report == sample()
    assert not report.has_broken_seal
    assert json.loads(report.to_json())["version"] == 3


@pytest.mark.parametrize("numbers", [(0, 1), (1, 1), (2, 1), (1, 3), (-1,), (2,)])
def test_steps_are_numbered_from_1(numbers: tuple[int, ...]) -> None:
    values = sample().to_dict()
    values["steps"] = [{**values["steps"][0], "step": number} for number in numbers]
    with pytest.raises(HubmergeError, match="steps are not numbered 1, 2, 3 and so on"):
        RunReport.from_json(json.dumps(values))


def test_the_list_of_files_belongs_to_the_last_step(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "sub/hubmerge.json", "hubmerge.json", ".gitattributes"):
        (tmp_path / name).write_bytes(b"content")
    files = list_step_files(tmp_path)
    assert files == dict.fromkeys(("a.txt", "sub/hubmerge.json"), FileRecord(hashlib.sha256(b"content").hexdigest(), 7))
    report = dataclasses.replace(sample(), all_files=files)
    assert report.until(2).all_files == report.with_step(report.steps[1]).all_files == files
    third = dataclasses.replace(report.steps[1], step=3)
    assert report.until(1).all_files == report.with_step(third).all_files == {}


def test_values_outside_of_json_are_refused() -> None:
    step = StepReport(1, "a", "a/b", "1" * 40, float("nan"), 1.0, 1.0)
    with pytest.raises(ValueError, match="JSON"):
        sample().with_step(step).to_json()


def test_spread_of_nothing_is_none() -> None:
    assert Spread.of([]) is None
    assert Spread.of([3, 1]) == Spread(2.0, 1.0, 3.0)
