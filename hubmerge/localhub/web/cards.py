"""Cards as HTML, with relative addresses resolved to the files of their commit."""

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
"""URL schemes that are kept, by attribute. Markdown-it allows `data:` for pictures only, except SVG."""
MARKDOWN_LIMIT = 100_000
"""Characters. Longer cards are shown as plain text, because rendering can take quadratic time."""

FOLD = re.compile(r"\s*(</?details>|<summary>([^<>]|</?code>)*</summary>)\s*")
"""HTML lines of a card that are kept: foldable sections."""


def _html(_renderer: object, tokens: Sequence[Token], index: int, _options: object, _env: object) -> str:
    lines = tokens[index].content.splitlines(keepends=True)
    return "".join(line if FOLD.fullmatch(line) else escape(line) for line in lines)


_markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_markdown.add_render_rule("html_block", _html)
_markdown.add_render_rule("html_inline", _html)


def resolve_address(address: str, attribute: str, files: str) -> str:
    """Return the address of a link or picture of a card; relative ones start at `files`, which ends with a slash."""
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


def _resolve_addresses(tokens: Iterable[Token], files: str) -> None:
    for token in tokens:
        for attribute in ("href", "src"):
            if attribute in token.attrs:
                token.attrs[attribute] = resolve_address(str(token.attrs[attribute]), attribute, files)
        _resolve_addresses(token.children or (), files)


def render_markdown(text: str, files: str) -> Html:
    """Return Markdown as HTML. HTML in the text is escaped, except foldable sections."""
    if len(text) > MARKDOWN_LIMIT:
        return tag("pre", text)
    tokens = _markdown.parse(text)
    _resolve_addresses(tokens, files)
    return Html(_markdown.renderer.render(tokens, _markdown.options, {}))


def metadata_table(card: dict[str, Any]) -> Html:
    """Return a table of a card's metadata, without nested fields."""
    rows = []
    for name, value in card.items():
        values = value if isinstance(value, list) else [value]
        if values and not any(isinstance(item, (dict, list)) or item is None for item in values):
            rows.append([tag("th", name, scope="row"), tag("td", ", ".join(map(str, values)))])
    return table(rows, class_="metadata") if rows else Html()
