"""A card as HTML: its Markdown rendered, its addresses pointed to the files of the commit it stands in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

from hubmerge.localhub.web.markup import Html, table, tag

SAFE_SCHEMES = {"href": ("http", "https", "mailto"), "src": ("http", "https", "data")}
"""Markdown-it lets `data:` through for pictures only, and not for SVG."""
MARKDOWN_LIMIT = 100_000
"""Characters. Longer cards are shown as they were written: odd ones take a time that grows with the square of this."""

FOLD = re.compile(r"\s*(</?details>|<summary>([^<>]|</?code>)*</summary>)\s*")
"""The one HTML of cards that is kept, a line at a time: what folds a part of them away."""


def _html(_renderer: object, tokens: Sequence[Token], index: int, _options: object, _env: object) -> str:
    lines = tokens[index].content.splitlines(keepends=True)
    return "".join(line if FOLD.fullmatch(line) else escape(line) for line in lines)


_markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_markdown.add_render_rule("html_block", _html)
_markdown.add_render_rule("html_inline", _html)


def pointed(address: str, attribute: str, files: str) -> str:
    """Return the address a link or picture of a card leads to; `files` is where relative ones start, with a slash."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "#"
    if parts.scheme:
        return address if parts.scheme in SAFE_SCHEMES[attribute] else "#"
    if parts.netloc or address.startswith(("/", "#")):
        return address
    steps: list[str] = []
    for step in parts.path.split("/"):
        if step == "..":
            steps[-1:] = []
        elif step not in ("", "."):
            steps.append(step)
    return files + "/".join(steps) + (f"#{parts.fragment}" if parts.fragment else "")


def _point(tokens: Iterable[Token], files: str) -> None:
    for token in tokens:
        for attribute in ("href", "src"):
            if attribute in token.attrs:
                token.attrs[attribute] = pointed(str(token.attrs[attribute]), attribute, files)
        _point(token.children or (), files)


def render_markdown(text: str, files: str) -> Html:
    """Render Markdown. HTML in it is shown as text, but for what folds parts away."""
    if len(text) > MARKDOWN_LIMIT:
        return tag("pre", text)
    tokens = _markdown.parse(text)
    _point(tokens, files)
    return Html(_markdown.renderer.render(tokens, _markdown.options, {}))


def metadata_table(card: dict[str, Any]) -> Html:
    """Show the plain fields of a card's metadata; nested ones are for programs."""
    rows = []
    for name, value in card.items():
        values = value if isinstance(value, list) else [value]
        if values and not any(isinstance(item, (dict, list)) or item is None for item in values):
            rows.append([tag("th", name, scope="row"), tag("td", ", ".join(map(str, values)))])
    return table(rows, class_="metadata") if rows else Html()
