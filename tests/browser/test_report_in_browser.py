"""The page of a report in a browser: two widths, both color schemes, sorting by mouse and keyboard, print."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hubmerge.report_page import report_page
from hubmerge.study.page import study_page
from tests.browser.conftest import SCHEMES, WIDTHS, Browser, check_page
from tests.cards.samples import sample_report
from tests.checks import every
from tests.report_page.test_page import DETAILS, long_report
from tests.study.test_page import references, results


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(sample_report(), DETAILS), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_readable(browser: Browser, page: str, tmp_path: Path, width: int, scheme: str) -> None:
    check_page(browser, page, width, scheme, tmp_path / "page.png")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "study.html"
    path.write_text(study_page(results(), references(), "study"), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_the_page_of_a_study_is_readable(browser: Browser, study: str, tmp_path: Path, width: int, scheme: str) -> None:
    check_page(browser, study, width, scheme, tmp_path / "page.png")
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.findings() == []


def test_a_published_page_opened_as_a_file_links_the_public_hub(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(report_page(sample_report(), dataclasses.replace(DETAILS, endpoint="")), encoding="utf-8")
    browser.open(path.as_uri())
    links = browser.run("return [...document.querySelectorAll('a')].map(one => one.href)")
    assert links
    assert every(link.startswith("https://huggingface.co/") for link in links)


def test_schemes_differ(browser: Browser, page: str) -> None:
    colors = []
    for scheme in SCHEMES:
        browser.open(page, scheme=scheme)
        colors.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert colors[0] != colors[1]


def test_rows_sort_by_mouse_and_by_keyboard(browser: Browser, page: str) -> None:
    browser.open(page)
    names = "return [...document.querySelectorAll('#tasks tbody tr')].map(row => row.cells[0].textContent)"
    assert browser.run(names) == ["sun397", "mnist", "pets"]
    button = browser.find("#tasks thead th:nth-of-type(4) button")
    button.click()
    assert browser.run(names) == ["sun397", "mnist", "pets"]  # 68.5, 94.6, 99.1
    button.send_keys("\n")
    assert browser.run(names) == ["pets", "mnist", "sun397"]
    assert browser.find("#tasks thead th:nth-of-type(4)").get_attribute("aria-sort") == "descending"


def test_values_appear_on_hover(browser: Browser, page: str) -> None:
    browser.open(page)
    tips = browser.run("return [...document.querySelectorAll('#curves .mark title')].map(one => one.textContent)")
    assert "sun397, step 3: 68.53 %" in tips
    assert browser.find("#matrix td.heat").get_attribute("title")


def test_a_long_stream_opens(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "long.html"
    path.write_text(report_page(long_report(200), DETAILS), encoding="utf-8")
    check_page(browser, path.as_uri(), 390, "light", tmp_path / "long.png")
