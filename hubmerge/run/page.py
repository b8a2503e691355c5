"""Report of a step as a page, made from the files beside it alone, so that verification can make it again."""

from __future__ import annotations

from pathlib import Path

from hubmerge.errors import UsageError
from hubmerge.report.report import RunReport
from hubmerge.report_page import PageDetails, page_form, report_page
from hubmerge.support.names import LOCK_FILE, PAGE_FILE, RECIPE_FILE, REPORT_FILE


def write_page(folder: Path, report: RunReport, repo: str | None) -> None:
    """Write the page into the folder of a step that has recipe and lock.

    Args:
        folder: Folder of the merged model.
        report: Report of the step.
        repo: Repo that the recipe publishes to, None if it publishes nothing.
    """
    # Bytes, because text files would lose the line ends of other systems.
    recipe, lock = ((folder / name).read_bytes().decode("utf-8") for name in (RECIPE_FILE, LOCK_FILE))
    (folder / PAGE_FILE).write_bytes(page_of_step(report, recipe, lock, repo).encode("utf-8"))


def page_of_step(report: RunReport, recipe: str, lock: str, repo: str | None) -> str:
    """Return the page of the last step of a report. It depends on the arguments alone, not on the Hub or the machine.

    Args:
        report: Report of the step, whole or in its short form.
        recipe: Text of the recipe.
        lock: Text of the lock.
        repo: Repo that the recipe publishes to, None if it publishes nothing.
    """
    name = (repo or f"{report.base_model.reference}-{report.merge_method}").split("/")[-1]
    title = f"{name}, step {report.steps[-1].step}"
    return report_page(report, PageDetails(title, recipe, lock, repo, endpoint="", abridged=True))


def check_page_place(out: Path) -> None:
    """Check that a page may be written to a file: it is new or an earlier page, and no file of a step.

    Raises:
        UsageError: the file is a folder or not a page of hubmerge, or it belongs to a step.
    """
    hint = "choose another file with --out FILE"
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint=f"name a file: --out {out / PAGE_FILE}", file=str(out))
    if out.name == PAGE_FILE and (out.parent / REPORT_FILE).is_file():
        raise UsageError(f"{out} is a file of the step in this folder", hint=hint, file=str(out))
    if not out.is_file():
        return
    with out.open(encoding="utf-8", errors="replace") as file:
        if page_form(file.read(4000)) is None:
            raise UsageError(f"{out} exists and is not a page that hubmerge wrote", hint=hint, file=str(out))
