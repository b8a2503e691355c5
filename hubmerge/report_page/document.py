"""HTML document around the sections of a page, with its style and script."""

from __future__ import annotations

import re
from importlib.resources import files

from hubmerge.report_page.markup import text

# Nothing is loaded, neither from another server nor from a file beside the page.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

PAGE_FORM = 3
"""The number of the form of the page that this version writes; raise it with every change of the page."""

_MARK = '<meta name="generator" content="hubmerge page {}">'
_MARKED = re.compile(_MARK.format(r"(\d{1,9})"))


def page_form(page: str) -> int | None:
    """Return the number of the form that a page was written in, None if it is no page of hubmerge."""
    found = _MARKED.search(page[:4000])
    return int(found[1]) if found else None


def document(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: the title, as text.
        body: what follows the title, as HTML.
    """
    folder = files("hubmerge.report_page")
    style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{_MARK.format(PAGE_FORM)}\n"
        f'<meta name="color-scheme" content="light dark">\n<title>{text(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<header><h1>{text(title)}</h1></header>\n<main>{body}</main>\n"
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )
