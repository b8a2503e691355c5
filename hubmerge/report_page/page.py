"""The page: head, sections, style and script in one HTML text."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import quote

from hubmerge.report.report import RunReport
from hubmerge.report_page.markup import section, tag, text
from hubmerge.report_page.merging import Link, merge_sections
from hubmerge.report_page.scores import headline, score_sections
from hubmerge.support.text import counted
from hubmerge.support.version import VERSION
from merge_recipes.references import ModelReference, is_commit

# Nothing is loaded, neither from another server nor from a file beside the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class PageDetails:
    """Facts of a page that are not in the report.

    Attributes:
        title: the name of the merged model.
        recipe: the text of the recipe.
        lock: the text of the lock.
        repo: the repo that the step is published in, None for a folder.
        endpoint: the address of the Hub, for links; None for no links.
    """

    title: str
    recipe: str = ""
    lock: str = ""
    repo: str | None = None
    endpoint: str | None = None


def report_page(report: RunReport, details: PageDetails) -> str:
    """Return the page of the last step of a report, as an HTML text that needs no other file.

    Raises:
        ValueError: the report has no step.
    """
    if not report.steps:
        raise ValueError("a page needs a report with at least one step")
    link = _linker(details.endpoint)
    sections = [
        *score_sections(report),
        *merge_sections(report, link),
        section(
            "recipe",
            "Recipe and lock",
            _source("hubmerge.yaml", details.recipe),
            _source("hubmerge.lock.yaml", details.lock),
        ),
        section("versions", "Made with", _versions(report)),
    ]
    body = tag("main", "\n".join([_summary(report, details, link), headline(report), *filter(None, sections)]))
    return _document(details.title, tag("header", f"<h1>{text(details.title)}</h1>") + body)


def _document(title: str, body: str) -> str:
    folder = files("hubmerge.report_page")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{text(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


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
    return tag("p", f"Merged with {versions or 'unknown versions'}. Page written by hubmerge {text(VERSION)}.")
