"""The page of a step: its sections, from the report."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from hubmerge.report.report import RunReport
from hubmerge.report.shown import FIRST_SHOWN, LAST_SHOWN
from hubmerge.report_page.document import document
from hubmerge.report_page.left_out import LeftOut, left_out_section
from hubmerge.report_page.markup import section, tag, text
from hubmerge.report_page.merging import Link, merge_sections
from hubmerge.report_page.read_outs import read_out_section
from hubmerge.report_page.scores import headline, score_sections
from hubmerge.support.text import counted
from merge_recipes.references import ModelReference, is_commit


@dataclass(frozen=True)
class PageDetails:
    """Facts of a page that are not in the report.

    Attributes:
        title: the name of the merged model.
        recipe: the text of the recipe.
        lock: the text of the lock.
        repo: the repo that the step is published in, None for a folder.
        endpoint: the address of the Hub, for links; None for no links. With an empty text, links start at the root of
            the Hub that serves the page; opened as a file, they lead to huggingface.co.
        abridged: True for the first and last steps of a long stream alone, as in the card.
        leave_one_out: what each entry gives to the merge.
    """

    title: str
    recipe: str = ""
    lock: str = ""
    repo: str | None = None
    endpoint: str | None = None
    abridged: bool = False
    leave_one_out: LeftOut | None = None


def report_page(report: RunReport, details: PageDetails) -> str:
    """Return the page of the last step of a report, as an HTML text that needs no other file.

    Raises:
        ValueError: the report has no step.
    """
    if not report.steps:
        raise ValueError("a page needs a report with at least one step")
    link = _linker(details.endpoint)
    report = report.abridged() if details.abridged else report
    matrix = report.accuracy_matrix()
    sections = [
        *score_sections(report, matrix, abridged=details.abridged),
        read_out_section(report.steps),
        *merge_sections(report, link, abridged=details.abridged),
        left_out_section(details.leave_one_out),
        section(
            "recipe",
            "Recipe and lock",
            _source("hubmerge.yaml", details.recipe),
            _source("hubmerge.lock.yaml", details.lock),
        ),
        section("versions", "Made with", _versions(report)),
    ]
    top = [_summary(report, details, link), _gap(report, details), headline(report, matrix)]
    return document(details.title, "\n".join(filter(None, [*top, *sections])))


def _gap(report: RunReport, details: PageDetails) -> str:
    """Return the sentence about the steps that an abridged page leaves out."""
    last = report.steps[-1].step
    if not details.abridged or last <= FIRST_SHOWN + LAST_SHOWN:
        return ""
    place = details.repo or "path/to/this/folder"
    told = f"Scores and similarities of steps {FIRST_SHOWN + 1} to {last - LAST_SHOWN} are left out here. "
    return tag("p", f"{told}<code>hubmerge report {text(place)}</code> writes a page with all of them.")


def _summary(report: RunReport, details: PageDetails, link: Link) -> str:
    base, count = report.base_model, len(report.models)
    told = (
        f"{counted(count, 'checkpoint')} of {link(base.reference, base.commit)} merged by "
        f"<code>{text(report.merge_method)}</code>, step {report.steps[-1].step}"
    )
    if report.parameters:
        values = ", ".join(f"{text(key)} = {text(value)}" for key, value in sorted(report.parameters.items()))
        told += f", with {values}"
    if details.repo is not None:
        told += f". Published in {link(details.repo, '')}"
    return tag("p", f"{told}.", class_="summary")


def _linker(endpoint: str | None) -> Link:
    def link(reference: str, commit: str) -> str:
        try:
            parsed = ModelReference.parse(reference)
        except ValueError:
            return f"<code>{text(reference)}</code>"
        if endpoint is None or parsed.is_local:
            return f"<code>{text(reference)}</code>"
        place = f"{endpoint}/{quote(parsed.path)}" + (f"/tree/{commit}" if is_commit(commit) else "")
        return tag("a", text(reference), href=place)

    return link


def _source(name: str, content: str) -> str:
    if not content:
        return ""
    inner = tag("pre", f"<code>{text(content)}</code>", tabindex="0", role="region", aria_label=name)
    return tag("details", f"<summary>{text(name)}</summary>{inner}")


def _versions(report: RunReport) -> str:
    versions = ", ".join(f"{text(name)} {text(version)}" for name, version in sorted(report.versions.items()))
    return tag("p", f"Merged with {versions or 'unknown versions'}.")
