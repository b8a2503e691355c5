"""`hubmerge.json` stays small, and what it leaves out is in the files in `history/`."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from hubmerge.errors import HubmergeError
from hubmerge.report.form import NEW_KEYS
from hubmerge.report.history import completed, report_until
from hubmerge.report.report import RunReport
from tests.report.long_reports import long_report, reader


@pytest.mark.parametrize(("tasks", "most"), [(0, 320_000), (20, 350_000), (500, 700_000)])
def test_the_report_of_500_steps_is_small(tasks: int, most: int) -> None:
    assert len(long_report(500, tasks).to_json()) < most


def test_one_more_step_adds_a_few_hundred_bytes() -> None:
    sizes = [len(long_report(500).until(step).to_json()) for step in (100, 200, 300)]
    assert sizes[1] - sizes[0] < 100 * 450
    assert abs((sizes[2] - sizes[1]) - (sizes[1] - sizes[0])) < 2000


def test_short_streams_are_whole_in_the_last_steps() -> None:
    report = long_report(6, 3)
    again = RunReport.from_json(report.to_json())
    assert again.steps[2:] == report.steps[2:]
    assert again.steps[0].matrices == ()
    assert again.steps[0].scores == {"task-1": {"accuracy": report.steps[0].scores["task-1"]["accuracy"]}}


@pytest.mark.parametrize("steps", [1, 4, 5, 24, 25, 60])
def test_what_is_written_is_read_back(steps: int) -> None:
    text = long_report(steps, 3).to_json()
    again = RunReport.from_json(text)
    assert again.to_json() == text
    assert again == again.abridged() == long_report(steps, 3).abridged()
    assert not again.has_broken_seal
    assert again.broken_digest() is None
    assert json.loads(text)["steps"][0]["step"] == 1


def test_abridging_step_by_step_is_abridging_at_once() -> None:
    """A run that continues from the published report writes what a run of all steps writes."""
    whole = long_report(60, 5)
    report = whole.until(1)
    for step in whole.steps[1:]:
        report = RunReport.from_json(report.to_json()).with_step(step)
        tasks = tuple(task for task in whole.tasks if task.step <= step.step)
        report = dataclasses.replace(report, tasks=tasks)
    expected = dataclasses.replace(whole, base_scores={}, own_scores={})
    assert dataclasses.replace(report, base_scores={}, own_scores={}).to_json() == expected.to_json()


def test_the_measures_survive_abridging() -> None:
    whole = long_report(100, 8)
    short = RunReport.from_json(whole.to_json())
    assert short.accuracy_matrix().measures() == whole.accuracy_matrix().measures()
    for task in whole.tasks:
        assert short.accuracy_matrix().extremes(task.name) == whole.accuracy_matrix().extremes(task.name)
    own = whole.main_scores(whole.own_scores)
    assert short.accuracy_matrix().share_of_own(own) == whole.accuracy_matrix().share_of_own(own)
    text = short.accuracy_matrix().to_text()
    assert text == whole.accuracy_matrix().to_text()
    assert [line.split()[0] for line in text.splitlines()[1:7]] == ["1", "2", "3", "4", "...", "81"]


def test_files_of_the_steps_complete_the_report() -> None:
    whole = long_report(60, 5)
    short = RunReport.from_json(whole.to_json())
    assert completed(short, reader(whole)) == whole
    assert report_until(short, 30, reader(whole)) == whole.until(30).abridged()
    assert report_until(short, 60, lambda _: None) == short


def test_files_that_do_not_fit_are_refused() -> None:
    whole = long_report(60, 5)
    short, read = RunReport.from_json(whole.to_json()), reader(whole)

    def changed(step: int) -> bytes:
        return read(step).replace(b'"rank": 3', b'"rank": 4') if step == 7 else read(step)

    with pytest.raises(HubmergeError, match=r"history/step-07\.json does not match the digest in hubmerge\.json"):
        completed(short, changed)
    with pytest.raises(HubmergeError, match=r"history/step-08\.json is missing"):
        completed(short, lambda step: None if step == 8 else read(step))
    with pytest.raises(HubmergeError, match=r"history/step-08\.json is missing"):
        report_until(short, 30, lambda step: None if step == 8 else read(step))


def test_short_forms_that_differ_from_the_files_are_found() -> None:
    """Someone may change a short form and seal the report again."""
    whole = long_report(60, 5)
    short = RunReport.from_json(whole.to_json())
    changes: tuple[tuple[int, dict[str, Any]], ...] = (
        (10, {"scale": 9.0}),
        (50, {"similarity": 0.5}),
        (2, {"scores": {}}),
        (60, {"scale": 9.0}),
    )
    for step, change in changes:
        steps = list(short.steps)
        steps[step - 1] = dataclasses.replace(steps[step - 1], **change)
        forged = RunReport.from_json(dataclasses.replace(short, steps=tuple(steps)).to_json())
        assert not forged.has_broken_seal
        with pytest.raises(HubmergeError, match=rf"history/step-{step:02d}\.json does not agree with hubmerge\.json"):
            completed(forged, reader(whole))


def test_a_longer_form_than_that_of_the_step_is_found() -> None:
    whole = long_report(60, 5)
    values = json.loads(whole.to_json())
    values["steps"][9] = whole.steps[9].to_dict()
    report = RunReport.from_json(json.dumps(values))
    with pytest.raises(HubmergeError, match=r"history/step-10\.json does not agree with hubmerge\.json"):
        completed(report, reader(whole))


def test_reports_of_version_2_are_whole() -> None:
    values = {**long_report(30).to_dict(), "version": 2, "seal": None}
    values = {key: value for key, value in values.items() if key not in NEW_KEYS}
    report = RunReport.from_json(json.dumps(values))
    assert report.steps == long_report(30).steps
    assert report.history_files == {}
    assert completed(report, lambda _: None) is report
    assert report_until(report, 3, lambda _: None) == report.until(3)
    with pytest.raises(HubmergeError, match="a report of version 2 has no older_steps"):
        RunReport.from_json(json.dumps({**values, "older_steps": 3}))
