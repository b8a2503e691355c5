"""HTML elements; every `str` that is not `Html` is escaped."""

from __future__ import annotations

import html

from starlette.responses import Response

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --page: #ffffff; --panel: #f5f6f8; --line: #dfe2e6;
  --link: #0b5cad; --mark: #ffd21e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa2ad; --page: #14161a; --panel: #1d2026;
  --line: #30353d; --link: #7db8f5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
body > * { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1rem; padding-bottom: 1rem; color: var(--soft); }
header a { color: var(--ink); font-weight: 600; }
footer { padding-top: 2rem; padding-bottom: 2rem; color: var(--soft); font-size: .85rem; }
a { color: var(--link); text-underline-offset: .15em; }
a:hover { text-decoration-thickness: 2px; }
header a, .refs a, .number a { text-decoration: none; }
pre { overflow-x: auto; max-width: 100%; }
.wide { overflow-x: auto; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
code, pre, .commit { font-family: ui-monospace, monospace; font-size: .88em; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.kind { padding: .1rem .55rem; border: 1px solid var(--line); border-radius: 1rem; color: var(--soft);
  font-size: .8rem; }
.refs { display: flex; flex-wrap: wrap; gap: .4rem; list-style: none; margin: .4rem 0; padding: 0; }
.refs a { display: block; padding: .1rem .6rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: .4rem; font-size: .9rem; }
.refs a[aria-current] { border-color: var(--mark); box-shadow: 0 0 0 1px var(--mark); color: var(--ink); }
table { border-collapse: collapse; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
table.list { width: 100%; }
table.list td { overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; color: var(--soft); }
article { margin-top: 2rem; padding: 1.25rem 1.5rem; border: 1px solid var(--line); border-radius: .6rem;
  overflow-wrap: break-word; }
article table { margin: 1rem 0; font-size: .92rem; }
article td code { overflow-wrap: normal; white-space: nowrap; }
article > .wide:first-child table, article > :first-child { margin-top: 0; }
article table.metadata { color: var(--soft); }
article table.metadata td { overflow-wrap: anywhere; }
[align=center], center { text-align: center; }
[align=right] { text-align: right; }
div[class^="markdown-a"] { margin: 1rem 0; padding: .2rem 1rem; border-left: 4px solid var(--mark);
  background: var(--panel); }
p[class^="markdown-a"] { font-weight: 600; }
.task-list-item { list-style: none; }
article pre { padding: .8rem 1rem; background: var(--panel); border-radius: .4rem; overflow-x: auto; }
article :not(pre) > code { padding: .1rem .3rem; background: var(--panel); border-radius: .25rem; }
article img { max-width: 100%; height: auto; background: #ffffff; border-radius: .3rem; }
article blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--soft); }
"""
ALLOWED = (
    "default-src 'none'; img-src 'self' http: https: data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of a page: it allows pictures and the page's own style."""
SANDBOXED = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of an HTML file of a repo: its own scripts run, as a page of an origin of its own."""
PAGE_HEADERS = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
"""Headers of all pages."""


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, *content: str, **attributes: str) -> Html:
    """Return an element. Content that is not `Html` is escaped; `class_` is the attribute class, `a_b` is a-b."""
    inner = "".join(part if isinstance(part, Html) else html.escape(part) for part in content)
    spelled = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return Html(f"<{name}{spelled}>{inner}</{name}>")


def link(address: str, *content: str, **attributes: str) -> Html:
    """Return a link to an address of this Hub."""
    return tag("a", *content, href=address, **attributes)


def table(rows: list[list[Html]], **attributes: str) -> Html:
    """Return a table of rows of `th` and `td` elements."""
    return tag("table", tag("tbody", *(tag("tr", *row) for row in rows)), **attributes)


def html_page(title: str, content: list[Html], status: int = 200) -> Response:
    """Return a page."""
    head = [
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        Html(f"<style>{STYLE}</style>"),
    ]
    body = [
        tag("header", link("/", "hubmerge hub")),
        tag("main", *content),
        tag("footer", "For reading only. Programs use this Hub through HF_ENDPOINT and HF_TOKEN."),
    ]
    whole = "<!doctype html>\n" + tag("html", tag("head", *head), tag("body", *body), lang="en") + "\n"
    return Response(
        whole.encode("utf-8", errors="replace"),
        status_code=status,
        media_type="text/html; charset=utf-8",
        headers={**PAGE_HEADERS, "Content-Security-Policy": ALLOWED},
    )
