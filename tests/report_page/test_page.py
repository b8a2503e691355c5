"""The page of a report: complete, escaped, readable by a strict parser, and without requests."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import hubmerge
from hubmerge.report.report import MatrixStats, RunReport, StepSimilarity
from hubmerge.report_page import PageDetails, report_page
from hubmerge.report_page.charts import Line, line_chart, round_ticks, whole_ticks
from hubmerge.report_page.merging import MOST_SIMILARITIES
from tests.cards.samples import RECIPE, sample_report

DETAILS = PageDetails("merged, step 3", RECIPE, "version: 1\n", "me/merged", "https://hub.example")
VOID = {"meta", "path", "br", "input", "img", "link"}


class Reader(HTMLParser):
    """Collects tags and attributes, and fails where elements do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


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


def test_a_report_without_scores_has_no_sections_for_them() -> None:
    report = dataclasses.replace(sample_report(), tasks=(), base_scores={}, own_scores={})
    report = dataclasses.replace(report, steps=tuple(dataclasses.replace(step, scores={}) for step in report.steps))
    page = report_page(report, dataclasses.replace(DETAILS, repo=None, endpoint=None))
    assert 'id="matrix"' not in page
    assert 'id="checkpoints"' in page
    assert "href=" not in page


def test_steps_on_axes_are_whole() -> None:
    assert whole_ticks(1, 1) == [1]
    assert whole_ticks(1, 500)[:3] == [1, 50, 100]
    assert all(isinstance(step, int) for step in whole_ticks(3, 77))
    assert round_ticks(0.0, 1e-3)[1] == pytest.approx(2e-4)


def test_lines_of_one_color_differ_in_their_dashes() -> None:
    chart = line_chart([Line(f"task {i}", ((1, 0.5), (2, 0.25))) for i in range(20)], "accuracy")
    found = re.findall(r'<g class="line (c\d)"><path d="M[\d.]+ [\d.]+L[^"]+" stroke-dasharray="([^"]*)"', chart)
    assert len(found) == len(set(found)) == 20


def test_a_folder_without_a_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(hubmerge.MachineError, match="not a step"):
        hubmerge.write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
