"""Cards and pictures stay readable, however long the stream is."""

from __future__ import annotations

from io import BytesIO

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from hubmerge.automation.summary import summary_text
from hubmerge.cards import CardDetails, accuracy_picture, card_data, card_text, data_differences
from hubmerge.report.report import RunReport
from tests.checks import every
from tests.report.long_reports import long_report


def card(report: RunReport, *, whole: bool = False) -> str:
    details = CardDetails(
        recipe_text="models: []\n" * (10 * len(report.steps)), repo="local/long", form=2 if whole else 3
    )
    return card_text(report, details)


@pytest.mark.parametrize("tasks", [0, pytest.param(20, marks=pytest.mark.slow), 500])
def test_report_card_and_picture_of_500_steps_are_at_most_1_mb(tasks: int) -> None:
    report = long_report(500, tasks)
    picture = accuracy_picture(report.abridged().accuracy_matrix()) if tasks else b""
    text = card(report)
    assert len(report.to_json().encode()) + len(text.encode()) + len(picture) < 1_000_000
    assert text.count("\n| ") < 250
    if tasks:
        width, height = Image.open(BytesIO(picture)).size
        assert max(width, height) < 4000


def test_the_first_and_last_steps_are_shown() -> None:
    text = card(long_report(500, 500))
    assert "| … | 476 more |" in text
    for step in (1, 4, 481, 500):
        assert f"(/local/long/tree/step-{step:02d})" in text
    for step in (5, 480):
        assert f"(/local/long/tree/step-{step:02d})" not in text
    assert "`hubmerge.lock.yaml` has all of them" in text
    assert "The recipe is in [`hubmerge.yaml`](hubmerge.yaml)." in text
    assert "`history/` those of every step" in text
    assert "Best and worst step of each task" in text
    assert len(ModelCard(text).data.to_dict()["model-index"][0]["results"]) == 100


@pytest.mark.parametrize("steps", [1, 2, 20, 24])
def test_short_streams_are_shown_whole(steps: int) -> None:
    text = card(long_report(steps, steps))
    assert "…" not in text
    assert "more" not in text.partition("<code>hubmerge.yaml")[0].partition("## What was merged")[2]
    for step in range(1, steps + 1):
        assert f"(/local/long/tree/step-{step:02d})" in text


def test_the_card_is_that_of_the_report_that_is_read() -> None:
    report = long_report(60, 20)
    again = RunReport.from_json(report.to_json())
    assert card(again) == card(report)
    assert again.accuracy_matrix() == report.abridged().accuracy_matrix()
    assert summary_text(again, again.steps[-1:], []) == summary_text(report, report.steps[-1:], [])


def test_cards_of_earlier_forms_show_all_steps() -> None:
    report = long_report(60, 30)
    text = card(report, whole=True)
    assert every(f"(/local/long/tree/step-{step:02d})" in text for step in range(1, 61))
    assert "…" not in text
    assert data_differences(card_data(text, report), card_data(text, report)) == []


def test_a_step_without_scores_has_no_table_of_extremes() -> None:
    assert "Best and worst" not in card(long_report(60))
