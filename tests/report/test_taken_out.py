"""Means, backward transfer and forgetting are about the entries that are in the model."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hubmerge.cards import card_text
from hubmerge.cards.details import CardDetails
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.report.report import RunReport
from hubmerge.report_page import PageDetails, report_page
from tests.cards.samples import RECIPE, sample_report

ROWS = {1: {"a": 0.9}, 2: {"a": 0.8, "b": 0.7}, 3: {"a": 0.6, "b": 0.75, "c": 0.5}, 4: {"a": 0.3, "b": 0.85, "c": 0.4}}


def matrix_without(**taken_out: int) -> AccuracyMatrix:
    matrix = AccuracyMatrix(("a", "b", "c"), taken_out=taken_out)
    for step, row in ROWS.items():
        matrix = matrix.record(step, row)
    return matrix


def test_a_task_counts_until_its_checkpoint_is_taken_out() -> None:
    matrix = matrix_without(a=4)
    assert matrix.counted(3) == ("a", "b", "c")
    assert matrix.counted(4) == ("b", "c")
    assert matrix.average(3) == pytest.approx((0.6 + 0.75 + 0.5) / 3)
    assert matrix.average(4) == pytest.approx((0.85 + 0.4) / 2)
    assert matrix.backward_transfer() == pytest.approx(((0.85 - 0.7) + (0.4 - 0.5)) / 2)
    assert matrix.forgetting() == pytest.approx((0.0 + 0.1) / 2)
    assert matrix.share_of_own({"a": 1.0, "b": 1.0, "c": 0.8}) == pytest.approx((0.85 + 0.5) / 2)
    assert matrix.counted_average({"a": 0.0, "b": 0.2, "c": 0.4}) == pytest.approx(0.3)


def test_it_keeps_its_column_and_the_text_says_so() -> None:
    matrix = matrix_without(a=4)
    text = matrix.to_text({"a": 0.0, "b": 0.2, "c": 0.4})
    assert " base      0.0     20.0     40.0     30.0" in text
    assert "    4     30.0     85.0     40.0     62.5" in text
    assert text.endswith("not counted, because its checkpoint was taken out: a")
    assert AccuracyMatrix.from_dict(matrix.to_dict()) == matrix
    assert "taken_out" not in matrix_without().to_dict()
    assert matrix_without().remark == ""


def test_without_any_task_left_there_are_no_means() -> None:
    matrix = matrix_without(a=4, b=4, c=4)
    assert (matrix.average(4), matrix.backward_transfer(), matrix.forgetting()) == (None, None, None)
    assert matrix.remark == "not counted, because their checkpoints were taken out: a, b, c"


def revoked_report(**last: Any) -> RunReport:
    """Return a report of four steps, of which the last takes out the entry of the second one."""
    report = sample_report()
    second, third = report.steps[1], report.steps[2]
    keys = {"name": f"{second.name}-revoked", "revokes": second.name, "reference": second.reference}
    step = dataclasses.replace(third, step=4, **{**keys, "commit": second.commit, **last})
    return dataclasses.replace(report, steps=(*report.steps, step))


def test_the_task_of_a_revoked_entry_is_found() -> None:
    assert revoked_report().accuracy_matrix().taken_out == {"mnist": 4}
    assert sample_report().accuracy_matrix().taken_out == {}
    assert revoked_report().accuracy_matrix(counts_all=True).taken_out == {}


def test_a_task_without_a_checkpoint_of_its_own_stays() -> None:
    report = dataclasses.replace(revoked_report(), own_scores={})
    assert report.accuracy_matrix().taken_out == {}


def test_a_newer_commit_in_its_place_keeps_the_task() -> None:
    report = revoked_report()
    second = report.steps[1]
    newer = dataclasses.replace(
        report.steps[2], step=5, name=f"{second.name}-2", reference=second.reference, replaces=(second.name,)
    )
    assert dataclasses.replace(report, steps=(*report.steps, newer)).accuracy_matrix().taken_out == {}
    appended = dataclasses.replace(newer, replaces=())  # merged before, and kept by `revoke --only`
    assert dataclasses.replace(report, steps=(*report.steps, appended)).accuracy_matrix().taken_out == {}
    out = dataclasses.replace(appended, step=6, name="all", revokes=appended.name)
    steps = (*report.steps, appended, out)
    assert dataclasses.replace(report, steps=steps).accuracy_matrix().taken_out == {"mnist": 4}


def test_the_card_counts_the_entries_in_the_model() -> None:
    report = revoked_report()
    scores = report.main_scores(report.steps[-1].scores)
    mean = 100 * (scores["sun397"] + scores["pets"]) / 2
    card = card_text(report, CardDetails(recipe_text=RECIPE))
    assert f"**Mean score {mean:.1f} %**, the mean of 2 tasks" in card
    assert "| mnist (taken out) | accuracy | 48.2 |" in card or "| mnist (taken out) | accuracy | 48.3 |" in card
    assert "counts in no mean and in neither backward transfer nor forgetting" in card
    assert "Not counted, because its checkpoint was taken out&#58; mnist." in card
    assert "on mnist" not in card.partition("largest loss")[2].splitlines()[0]
    plain = card_text(sample_report(), CardDetails(recipe_text=RECIPE))
    assert "taken out" not in plain


def test_older_forms_count_all_tasks() -> None:
    report = revoked_report()
    scores = report.main_scores(report.steps[-1].scores)
    card = card_text(report, CardDetails(recipe_text=RECIPE, form=8))
    assert f"**Mean score {100 * sum(scores.values()) / 3:.1f} %**, the mean of 3 tasks" in card
    assert "mnist (taken out)" not in card


def test_a_model_without_any_entry_has_no_headline() -> None:
    report = revoked_report()
    tasks = tuple(task for task in report.tasks if task.name == "mnist")
    card = card_text(dataclasses.replace(report, tasks=tasks), CardDetails(recipe_text=RECIPE))
    assert "Mean score" not in card
    assert "**Accuracy" not in card


def test_the_page_counts_the_same_tasks() -> None:
    report = revoked_report()
    page = report_page(report, PageDetails(title="merged", recipe=RECIPE, lock=""))
    scores = report.main_scores(report.steps[-1].scores)
    assert f"<dt>merged model</dt><dd>{100 * (scores['sun397'] + scores['pets']) / 2:.1f}</dd>" in page
    assert "mnist (taken out)" in page
    assert "not counted, because its checkpoint was taken out: mnist" in page
