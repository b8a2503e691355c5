"""Reports are written as JSON and read back without loss."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hubmerge.errors import HubmergeError
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
        steps[step] = dataclasses.replace(steps[step], scale=steps[step].scale + 1e-9)
        assert dataclasses.replace(report, steps=tuple(steps)).broken_digest() == number
    changed = dataclasses.replace(report.steps[0], scale=9.0).with_digest(None)
    assert dataclasses.replace(report, steps=(changed, report.steps[1])).broken_digest() == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "format version None is unknown, expected 1"),
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


def test_values_outside_of_json_are_refused() -> None:
    step = StepReport(1, "a", "a/b", "1" * 40, float("nan"), 1.0, 1.0)
    with pytest.raises(ValueError, match="JSON"):
        sample().with_step(step).to_json()


def test_spread_of_nothing_is_none() -> None:
    assert Spread.of([]) is None
    assert Spread.of([3, 1]) == Spread(2.0, 1.0, 3.0)
