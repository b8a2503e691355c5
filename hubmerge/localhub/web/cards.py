"""Markdown of cards as HTML, with a safe part of HTML, and with addresses resolved to files of the commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from urllib.parse import urlsplit

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.gfm import gfm_plugin

from hubmerge.localhub.web.markup import Html, tag

SAFE_SCHEMES = {"href": ("http", "https", "mailto"), "src": ("http", "https", "data")}
"""URL schemes that are kept, by attribute. Of `data:`, only pictures that are not SVG are kept."""
MARKDOWN_LIMIT = 100_000
"""Characters. Longer cards are shown as plain text, because rendering can take quadratic time."""
FORMULA_LIMIT = 1_000
"""Characters. Longer formulas are shown as they are written."""

TEXT = frozenset({
    "a", "abbr", "b", "blockquote", "br", "center", "code", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "input", "ins", "kbd",
    "li", "mark", "ol", "p", "picture", "pre", "q", "s", "samp", "section", "small", "source", "span",
    "strike", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt",
    "u", "ul", "var",
})  # fmt: skip
"""HTML elements of a card that are kept; others are shown as text."""
FORMULAS = frozenset({
    "math", "menclose", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded", "mphantom",
    "mprescripts", "mroot", "mrow", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtable", "mtd",
    "mtext", "mtr", "munder", "munderover",
})  # fmt: skip
ATTRIBUTES = {
    "*": {"align", "class", "id", "title"},
    "a": {"href"},
    "details": {"open"},
    "img": {"alt", "height", "src", "width"},
    "input": {"checked", "disabled", "type"},
    "ol": {"start"},
    "td": {"colspan", "rowspan", "style"},
    "th": {"colspan", "rowspan", "style"},
    "math": {"display", "xmlns"},
    "mo": {"fence", "form", "largeop", "maxsize", "minsize", "movablelimits", "separator", "stretchy"},
    "mspace": {"width"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mtd": {"columnalign"},
}
_UNKNOWN = re.compile(rf"<(?!/?(?:{'|'.join(sorted(TEXT))})[\s/>])")
_COMMENT = re.compile(r"<!--.*?(?:-->|$)", re.DOTALL)
_PICTURE = re.compile(r"data:image/(?:png|jpe?g|gif|webp);")


def render_markdown(text: str, files: str, pages: str | None = None) -> Html:
    """Return Markdown as HTML: GitHub's dialect with task lists, alerts, footnotes and formulas, and safe HTML.

    Args:
        text: the Markdown.
        files: the address that the relative addresses of pictures start at; it ends with a slash.
        pages: that of relative links, such as the pages of files; by default `files`.
    """
    starts = {"src": files, "href": files if pages is None else pages}
    if len(text) > MARKDOWN_LIMIT:
        return tag("pre", text, tabindex="0")

    def kept(_element: str, attribute: str, value: str) -> str | None:
        if attribute in SAFE_SCHEMES:
            return resolve_address(value, attribute, starts[attribute])
        return None if attribute == "type" and value != "checkbox" else value

    cleaned = nh3.clean(
        _markdown().render(text),
        tags=set(TEXT | FORMULAS),
        attributes=ATTRIBUTES,
        attribute_filter=kept,
        url_schemes={scheme for schemes in SAFE_SCHEMES.values() for scheme in schemes},
        filter_style_properties={"text-align"},
        link_rel="nofollow noopener noreferrer",
    )
    cleaned = cleaned.replace('type="checkbox"', 'type="checkbox" aria-label="task"')
    # What scrolls sideways must be reachable by keyboard.
    cleaned = cleaned.replace("<pre>", '<pre tabindex="0">')
    cleaned = cleaned.replace("<table", '<div class="wide" tabindex="0"><table').replace("</table>", "</table></div>")
    return Html(cleaned)


def resolve_address(address: str, attribute: str, start: str) -> str:
    """Return the address of a link or picture of a card; relative ones begin with `start`, which ends with a slash."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "#"
    if parts.scheme:
        is_safe = parts.scheme in SAFE_SCHEMES[attribute] and (parts.scheme != "data" or _PICTURE.match(address))
        return address if is_safe else "#"
    if parts.netloc or address.startswith(("/", "#")):
        return address
    steps: list[str] = []
    for step in parts.path.split("/"):
        if step == "..":
            steps[-1:] = []
        elif step not in ("", "."):
            steps.append(step)
    return start + "/".join(steps) + (f"#{parts.fragment}" if parts.fragment else "")


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    parser = MarkdownIt("commonmark").use(gfm_plugin)
    parser.use(dollarmath_plugin, renderer=_formula, allow_blank_lines=False, allow_digits=False, double_inline=True)
    parser.add_render_rule("html_block", _html)
    parser.add_render_rule("html_inline", _html)
    return parser


def _html(_renderer: object, tokens: Sequence[Token], index: int, _options: object, _env: object) -> str:
    """Return the HTML of a card, with elements that are not kept as text."""
    return _UNKNOWN.sub("&lt;", _COMMENT.sub("", tokens[index].content))


def _formula(text: str, options: dict[str, bool]) -> str:
    display = "block" if options.get("display_mode") else "inline"
    if len(text) <= FORMULA_LIMIT:
        try:
            return str(convert(text, display=display))
        except Exception:  # noqa: S110 - the library raises anything for formulas that it cannot read
            pass
    return f"<code>{escape(text)}</code>"
