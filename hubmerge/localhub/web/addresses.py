"""Paths of the pages and files of a repo, and sizes and times as pages show them."""

from __future__ import annotations

from urllib.parse import quote

from hubmerge.localhub.repository import Settings
from hubmerge.localhub.web.calls import PREFIXES


def repo_address(settings: Settings) -> str:
    """Return the path of a repo's page."""
    return f"/{PREFIXES[settings.kind]}{settings.id}"


def revision_address(settings: Settings, page: str, revision: str, path: str = "") -> str:
    """Return the path of a page of a revision (`tree`, `blob`, `commits` or `commit`), or of its served files."""
    return f"{repo_address(settings)}/{page}/{quote(revision, safe='')}" + (f"/{quote(path)}" if path else "")


def tree_address(settings: Settings, revision: str, folder: str = "") -> str:
    """Return the path of the page of a revision, or of a folder at it."""
    return revision_address(settings, "tree", revision, folder)


def files_address(settings: Settings, revision: str) -> str:
    """Return the path below which the files of a revision are served, with a slash at its end."""
    return revision_address(settings, "resolve", revision) + "/"


def file_pages_address(settings: Settings, revision: str) -> str:
    """Return the path below which the files of a revision are shown as pages, with a slash at its end."""
    return revision_address(settings, "blob", revision) + "/"


def discussion_address(settings: Settings, number: int | None = None) -> str:
    """Return the path of the page of a discussion, or of all discussions of a repo."""
    return f"{repo_address(settings)}/discussions" + (f"/{number}" if number is not None else "")


def format_size(size: int) -> str:
    """Return a size with a unit."""
    if size < 1000:
        return f"{size} B"
    number = float(size)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.5:
            return f"{number:.3g} {unit}"
    return f"{number / 1000:,.3g} TB"


def format_date(date: str) -> str:
    """Return the time of a record in a readable form."""
    return f"{date[:10]} {date[11:16]} UTC"
