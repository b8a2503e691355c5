"""The page of a published step is in the list of files, linked by the card, and written again by `verify`."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import HfApi

from hubmerge.report.report import RunReport
from hubmerge.report_page import PAGE_FORM
from tests.verify.published import Copy, Verify, published
from tests.verify.test_files import sealed_again

FORM = f'content="hubmerge page {PAGE_FORM}"'.encode()
TAMPERED = {
    "a number": lambda page: page.replace(b'data-value="0.', b'data-value="0.9', 1),
    "a line of the script": lambda page: page.replace(b"<script>", b"<script>\nalert(1);", 1),
    "a link": lambda page: page.replace(b'href="/', b'href="https://example.invalid/', 1),
    "its end": lambda page: page[:-1],
    "all": lambda page: b"<html>mine</html>",
}


@pytest.mark.parametrize("step", [1, 3])
def test_every_published_step_has_its_page(original: str, verify: Verify, step: int) -> None:
    revision = f"step-{step:02d}"
    page = published(original, "report.html", revision).decode()
    assert f"{original.split('/')[-1]}, step {step}</title>" in page
    assert "http://127.0.0.1" not in page  # links start at the root of whichever Hub serves it
    report = RunReport.from_json(published(original, "hubmerge.json", revision).decode())
    assert "report.html" in report.all_files
    assert "[`report.html`](report.html)" in published(original, "README.md", revision).decode()
    assert "report.html" in published(original, "hubmerge.intoto.json", revision).decode()
    status, output, errors = verify(f"{original}@{revision}", "--quick")
    assert status in {0, 7}, output + errors  # 7: the state of an earlier step is no longer published
    assert "same     page: agrees with report, recipe and lock" in output


@pytest.mark.parametrize("change", TAMPERED)
def test_a_changed_page_is_found_even_if_the_report_was_sealed_again(
    original: str, verify: Verify, copy: Copy, change: str
) -> None:
    content = published(original, "report.html")
    changed = TAMPERED[change](content)
    assert changed != content
    files = {"report.html": changed, "hubmerge.json": sealed_again(original, {"report.html": changed})}
    status, output, _ = verify(copy(files), "--quick")
    assert status == 6
    assert "differs  page: report.html" in output


def test_a_page_of_a_later_form_cannot_be_compared(original: str, verify: Verify, copy: Copy) -> None:
    changed = published(original, "report.html").replace(FORM, b'content="hubmerge page 999"')
    files = {"report.html": changed, "hubmerge.json": sealed_again(original, {"report.html": changed})}
    _, output, _ = verify(copy(files), "--quick", "--json")
    findings = [line for line in map(json.loads, output.splitlines()) if line["event"] == "finding"]
    assert [one["verdict"] for one in findings if one["subject"] == "page"] == ["unknown"]


def test_a_missing_page_is_found(original: str, verify: Verify, copy: Copy) -> None:
    repo = copy({"hubmerge.json": sealed_again(original, {}, without="report.html")})
    HfApi().delete_file("report.html", repo_id=repo)
    status, output, _ = verify(repo, "--quick")
    assert status == 6
    assert "differs  files: report.html is missing" in output
