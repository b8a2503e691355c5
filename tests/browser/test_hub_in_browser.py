"""The pages of the embedded Hub and of the documentation in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubmerge.cards import CardDetails, card_text
from hubmerge.localhub import LocalHub
from tests.browser.conftest import SCHEMES, WIDTHS, Browser, check_page
from tests.built_site import site
from tests.cards.samples import RECIPE, sample_report

__all__ = ["site"]  # fixture


@pytest.fixture(scope="module")
def repo(local_hub: LocalHub) -> str:
    api, name = HfApi(), "local/in-browser"
    api.create_repo(name)
    card = card_text(sample_report(), CardDetails(RECIPE, name, picture=None))
    api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=name, commit_message="Merge pets")
    return f"{local_hub.endpoint}/{name}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("place", ["", "/commits/main", "/blob/main/README.md"])
def test_pages_of_a_repo(browser: Browser, repo: str, tmp_path: Path, place: str, width: int, scheme: str) -> None:
    check_page(browser, repo + place, width, scheme, tmp_path / "page.png")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_documentation_opens(browser: Browser, site: Path, tmp_path: Path, width: int) -> None:
    browser.errors()
    browser.open(f"{site.as_uri()}/index.html", width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.driver.save_screenshot(str(tmp_path / "site.png"))
    assert "hubmerge" in browser.driver.title


def test_a_report_opens_from_the_page_of_its_file(browser: Browser, repo: str) -> None:
    report = b"<!doctype html><html lang='en'><title>report</title><p id='a'>off</p><script>a.textContent='on'</script>"
    HfApi().upload_file(path_or_fileobj=report, path_in_repo="report.html", repo_id=repo.split("/", 3)[3])
    browser.open(f"{repo}/blob/main/report.html")
    browser.driver.find_element("link text", "open as a page").click()
    assert browser.driver.title == "report"
    assert browser.run("return document.getElementById('a').textContent") == "on"
    assert browser.run("return window.origin") == "null"
