"""The page of a report: complete, escaped, readable by a strict parser, and without requests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import hubmerge
from hubmerge.inspection.entry_scores import EntryScore, LeaveOneOut, left_out, read_leave_one_out
from hubmerge.report.reading import ReadingReport, ReadReport
from hubmerge.report.report import MatrixStats, RunReport, Scores, StepSimilarity
from hubmerge.report_page import PAGE_FORM, LeftOut, LeftOutEntry, PageDetails, page_form, report_page
from hubmerge.report_page.merging import MOST_SIMILARITIES
from hubmerge.run.page import check_page_place
from tests.cards.samples import RECIPE, sample_report
from tests.checks import every
from tests.report_page.reader import read

DETAILS = PageDetails("merged, step 3", RECIPE, "version: 1\n", "me/merged", "https://hub.example")


def test_the_page_has_scores_checkpoints_recipe_and_lock() -> None:
    reader = read(report_page(sample_report(), DETAILS))
    text = " ".join(" ".join(reader.words).split())
    for expected in (
        "68.5",
        "94.6",
        "99.1",
        "base model",
        "own checkpoints",
        "share kept",
        "mnist",
        "1.4",
        "version: 1",
    ):
        assert expected in text
    links = {value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")}
    assert f"https://hub.example/tanganke/clip-vit-base-patch32_sun397/tree/{'1' * 40}" in links
    assert not [link for link in links if link and "my-pets" in link]


def test_a_chart_of_a_value_that_never_changes_is_a_sentence() -> None:
    report = sample_report()
    assert "removed share: 0 at every step." not in report_page(report, DETAILS)
    steps = tuple(dataclasses.replace(step, scale=1.0, removed_share=0.0) for step in report.steps)
    page = report_page(dataclasses.replace(report, steps=steps), DETAILS)
    for sentence in ("<p>λ: 1 at every step.</p>", "<p>removed share: 0 at every step.</p>"):
        assert sentence in page
    chart = 'aria-label="chart of λ: λ"'
    assert chart in report_page(report, DETAILS)
    assert chart not in page
    assert 'aria-label="chart of Frobenius norm: task vector' in page


def test_a_cosine_that_is_rounded_to_zero_has_no_sign() -> None:
    report = sample_report()
    last = dataclasses.replace(report.steps[-1], similarities=(StepSimilarity(1, report.steps[0].name, -0.0004),))
    page = report_page(dataclasses.replace(report, steps=(*report.steps[:-1], last)), DETAILS)
    assert ">0.00</td>" in page
    assert ">-0.00</td>" not in page


def test_the_page_loads_nothing() -> None:
    reader = read(report_page(sample_report(), DETAILS))
    assert not [
        tag for tag, name, _ in reader.attributes if name in {"src", "srcset"} or tag in {"link", "iframe", "img"}
    ]
    policy = next(
        value for _, name, value in reader.attributes if name == "content" and value and "default-src" in value
    )
    assert policy.startswith("default-src 'none'")
    assert "@import" not in report_page(sample_report(), DETAILS)


def test_texts_of_others_are_text() -> None:
    evil = '"><script>alert(1)</script>'
    report = sample_report()
    steps = (
        dataclasses.replace(report.steps[0], name=evil, reference="./" + evil, warnings=(evil,)),
        *report.steps[1:],
    )
    tasks = tuple(dataclasses.replace(task, name=task.name) for task in report.tasks)
    changed = dataclasses.replace(report, steps=steps, tasks=tasks, parameters={evil: evil}, versions={evil: evil})
    page = report_page(changed, PageDetails(evil, evil, evil, endpoint="https://hub.example"))
    read(page)
    assert page.count("<script>") == 1
    assert "alert(1)" in page


def test_the_choice_of_the_read_out_is_shown() -> None:
    report = sample_report()

    def choice(chosen: int, *scores: float, metric: str = "accuracy") -> ReadReport:
        readings = tuple(
            ReadingReport("wudi", score, {"ridge": ridge}) for ridge, score in zip((0.1, "<0.3>"), scores, strict=True)
        )
        return ReadReport("held-<out>", "a/b", None, "train", "c", metric, "highest", chosen, readings)

    def page_of(*reads: ReadReport | None) -> str:
        steps = tuple(dataclasses.replace(step, read=one) for step, one in zip(report.steps, reads, strict=True))
        return report_page(dataclasses.replace(report, steps=steps), DETAILS)

    page = page_of(choice(1, 0.1111, 0.1, metric="f1"), choice(1, 0.8125, 0.75), choice(2, 0.6875, 0.7188))
    words = " ".join(" ".join(read(page).words).split())
    assert "read out of the state by wudi, ridge <0.3> , the best of 2 by accuracy on the task held-<out>" in words
    assert "2 mnist 0.8125 0.7500 wudi, ridge 0.1" in words
    assert "3 pets 0.6875 0.7188 wudi, ridge <0.3>" in words
    assert page.count("<strong>0.8125</strong>") == page.count("<strong>0.7188</strong>") == 1
    assert "0.1111" not in page  # another metric decided
    for reads in ((None, None, None), (choice(1, 0.8, 0.7), None, None), (None, None, choice(0, 0.8, 0.7))):
        assert "Choice of the read-out" not in page_of(*reads)


def test_similarities_and_layers() -> None:
    report = sample_report()
    matrices = tuple(MatrixStats(f"encoder.layers.{i}.{part}.weight", 4 + i, 16, 0.25) for i in (0, 1) for part in "ab")
    similar = (StepSimilarity(1, "sun397", 0.125), StepSimilarity(2, "mnist", -0.5))
    last = dataclasses.replace(report.steps[-1], matrices=matrices, similarities=similar)
    text = " ".join(read(report_page(dataclasses.replace(report, steps=(*report.steps[:-1], last)), DETAILS)).words)
    assert "encoder.layers.1" in text
    assert "31.2 %" in text  # 5 of 16 directions
    assert "0.12" in text
    assert "-0.50" in text


def long_report(steps: int) -> RunReport:
    report = sample_report()
    similar = tuple(StepSimilarity(step, f"s{step}", 0.1) for step in range(1, steps))
    found = [
        dataclasses.replace(report.steps[0], step=i, name=f"s{i}", similarities=similar[: i - 1])
        for i in range(1, steps + 1)
    ]
    return dataclasses.replace(report, steps=tuple(found))


def test_a_long_stream_stays_small() -> None:
    page = report_page(long_report(500), DETAILS)
    assert len(page) < 1_000_000
    assert page.count('class="heat"') < 2 * MOST_SIMILARITIES**2 + 4000


def many_tasks(steps: int) -> RunReport:
    """Return a report in which every step has a task of its own, scored after every later step."""
    report = long_report(steps)
    tasks = tuple(dataclasses.replace(report.tasks[0], name=f"task-{i}", step=i) for i in range(1, steps + 1))
    every: Scores = {task.name: {"accuracy": 0.5 + 0.25 / task.step} for task in tasks}
    found = [
        dataclasses.replace(step, scores={task.name: every[task.name] for task in tasks[: step.step]})
        for step in report.steps
    ]
    return dataclasses.replace(report, tasks=tasks, steps=tuple(found), base_scores=every, own_scores=every)


@pytest.mark.parametrize("abridged", [True, False])
def test_500_steps_with_500_tasks_stay_under_five_megabytes(*, abridged: bool) -> None:
    page = report_page(many_tasks(500), dataclasses.replace(DETAILS, abridged=abridged))
    assert len(page.encode()) < 5_000_000
    text = " ".join(read(page).words)
    assert ("Scores and similarities of steps 5 to 480 are left out here" in text) == abridged
    assert "24 of 500 tasks" in text
    assert "s250" in text  # every checkpoint has its row


def test_an_abridged_page_does_not_need_the_whole_report() -> None:
    """The page is written again from `hubmerge.json` alone, whatever the report had that wrote it."""
    report, details = many_tasks(40), dataclasses.replace(DETAILS, abridged=True)
    read_back = RunReport.from_json(report.to_json())
    assert read_back.steps[10] != report.steps[10]
    assert report_page(read_back, details) == report_page(report, details)


def test_links_of_a_published_page_start_at_the_root() -> None:
    reader = read(report_page(sample_report(), dataclasses.replace(DETAILS, endpoint="")))
    links = [value for tag, name, value in reader.attributes if (tag, name) == ("a", "href")]
    assert f"/tanganke/clip-vit-base-patch32_sun397/tree/{'1' * 40}" in links
    assert every(link is not None and link.startswith("/") for link in links)


def test_the_form_of_a_page() -> None:
    assert page_form(report_page(sample_report(), DETAILS)) == PAGE_FORM
    assert page_form("<html></html>") is None


def test_what_each_entry_gives_is_a_section() -> None:
    entries = (LeftOutEntry("sun397", -0.0125, 0.25, 1.5, -0.03, ("lies far off",)), LeftOutEntry("mnist"))
    page = report_page(sample_report(), dataclasses.replace(DETAILS, leave_one_out=LeftOut(entries, "merged again")))
    text = " ".join(read(page).words)
    for expected in ("What each entry gives", "merged again", "-1.2", "+25.0", "lies far off"):
        assert expected in text
    assert 'id="leave-one-out"' not in report_page(sample_report(), DETAILS)


def test_a_report_without_scores_has_no_sections_for_them() -> None:
    report = dataclasses.replace(sample_report(), tasks=(), base_scores={}, own_scores={})
    report = dataclasses.replace(report, steps=tuple(dataclasses.replace(step, scores={}) for step in report.steps))
    page = report_page(report, dataclasses.replace(DETAILS, repo=None, endpoint=None))
    assert 'id="matrix"' not in page
    assert 'id="checkpoints"' in page
    assert "href=" not in page


def test_a_folder_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hubmerge.UsageError, match="not a step"):
        hubmerge.write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("place", ["me/merged+me/adapter", "me/merged/inner@step-02"])
def test_a_part_of_the_name_that_says_nothing_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(hubmerge.UsageError, match="has no adapter and no subfolder") as caught:
        hubmerge.write_report(place, tmp_path / "report.html")
    assert caught.value.hint == f"write {place.replace('+me/adapter', '').replace('/inner', '')}"


def test_a_folder_is_no_place_for_a_page(tmp_path: Path) -> None:
    with pytest.raises(hubmerge.UsageError, match="is a folder") as caught:
        hubmerge.write_report("me/merged", tmp_path)
    assert caught.value.hint == f"name a file: --out {tmp_path / 'report.html'}"


def test_a_file_of_somebody_is_not_replaced(tmp_path: Path) -> None:
    """Other tools write a file of that name too; an earlier page is replaced, the page of a step is not."""
    theirs = tmp_path / "report.html"
    theirs.write_text("<html>results of my tests</html>", encoding="utf-8")
    with pytest.raises(hubmerge.UsageError, match="is not a page that hubmerge wrote"):
        check_page_place(theirs)
    theirs.write_text(report_page(sample_report(), DETAILS), encoding="utf-8")
    check_page_place(theirs)
    check_page_place(tmp_path / "new.html")
    (tmp_path / "hubmerge.json").write_text("{}", encoding="utf-8")
    with pytest.raises(hubmerge.UsageError, match="is a file of the step in this folder"):
        check_page_place(theirs)


def test_scores_of_single_entries_are_read_from_a_file(tmp_path: Path) -> None:
    scores = LeaveOneOut(
        "me/merged", "ties", "merged again", (EntryScore(1, "a", "me/a", "1" * 40, 1.5, 0.1, 0.2, -0.1),)
    )
    path = tmp_path / "scores.jsonl"
    lines = [{"event": "note", "text": "x"}, {"event": "leave-one-out", **scores.to_dict()}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_leave_one_out(path) == scores
    assert left_out(scores).entries == (LeftOutEntry("a", -0.1, 0.2, 1.5, 0.1),)
    for text in ('{"event": "note", "text": "x"}', "{", '{"event": "leave-one-out", "place": 1}', ""):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(hubmerge.UsageError, match="no scores of single entries"):
            read_leave_one_out(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(hubmerge.UsageError, match="no scores of single entries"):
        read_leave_one_out(path)
    with pytest.raises(hubmerge.UsageError, match=r"none\.json cannot be read: No such file or directory"):
        read_leave_one_out(tmp_path / "none.json")
