"""Comparison of the page of a published step with its report."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.cards import card_form
from hubmerge.cards.details import WITH_PAGE
from hubmerge.hub.published import read_small_file
from hubmerge.report_page import PAGE_FORM, page_form
from hubmerge.run.page import page_of_step
from hubmerge.support.names import CARD_FILE, LOCK_FILE, PAGE_FILE, RECIPE_FILE
from hubmerge.verify.finding import Finding
from hubmerge.verify.kept import kept_files
from hubmerge.verify.published import Published
from merge_recipes import RecipeError

MOST_BYTES = 20_000_000
"""Size of a page from which it is not read."""


def check_page(published: Published) -> Iterator[Finding]:
    """Write the page again from report, recipe and lock, and compare the bytes. Older steps have none."""
    files = published.files
    if PAGE_FILE in kept_files(published):
        return
    if PAGE_FILE not in files.files:
        if card_form(files.metadata_files[CARD_FILE]) >= WITH_PAGE:
            yield Finding("files", "differs", f"{PAGE_FILE} is missing")
        return
    if published.report.version == 1:
        yield Finding("files", "differs", f"{PAGE_FILE} is not a file of this step")
        return
    if files.sizes[PAGE_FILE] > MOST_BYTES:
        yield Finding("page", "differs", f"{PAGE_FILE} is larger than {MOST_BYTES:,} bytes")
        return
    yield _compare(published, read_small_file(files, PAGE_FILE))


def _compare(published: Published, content: bytes) -> Finding:
    form = page_form(content.decode("utf-8", errors="replace"))
    if form is None:
        return Finding("page", "differs", f"{PAGE_FILE} is not a page that hubmerge wrote")
    if form != PAGE_FORM:
        return Finding("page", "unknown", f"{PAGE_FILE} has the form {form}; this version writes form {PAGE_FORM}")
    try:
        publish = published.recipe().recipe.publish
    except RecipeError:
        return Finding("page", "unknown", f"{PAGE_FILE} cannot be written again: the recipe cannot be read")
    recipe, lock = (published.files.metadata_files[name] for name in (RECIPE_FILE, LOCK_FILE))
    expected = page_of_step(published.report, recipe, lock, publish.repo if publish is not None else None)
    if content == expected.encode("utf-8"):
        return Finding("page", "same", "agrees with report, recipe and lock")
    return Finding("page", "differs", f"{PAGE_FILE} does not agree with report, recipe and lock")
