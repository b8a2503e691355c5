"""Markdown from untrusted text: no name can become markup, a link, HTML or a new line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar
from urllib.parse import quote

from hubmerge.report.shown import shown
from merge_recipes.references import is_commit

T = TypeVar("T")

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
# A colon, an at sign or "www." would make a link.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", ":": "&#58;"}


def one_line(text: object) -> str:
    """Return `text` with each run of blanks and control characters replaced by one space."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())


def plain(text: object) -> str:
    r"""Return `text` for the inside of a line, with the characters of Markdown and HTML escaped.

    >>> plain("<b>a*b</b>")
    '&lt;b&gt;a\\*b&lt;/b&gt;'
    """
    escaped = _SPECIAL.sub(r"\\\1", one_line(text))
    safe = "".join(_ENTITIES.get(letter, letter) for letter in escaped)
    return re.sub(r"(?i)www\.", lambda found: found[0][:3] + "&#46;", safe)


def code(text: object) -> str:
    """Return `text` in a code span with enough backticks, and with pipes escaped for tables."""
    line = one_line(text).replace("|", r"\|")
    if not line:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest or line.endswith("\\") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str) -> str:
    """Return a fenced block with a fence that `text` does not contain."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def is_repo(path: str) -> bool:
    """Return True if `path` can be the name of a repo on the Hub."""
    return _REPO.fullmatch(path) is not None


def repo_link(shown: str, repo: str, commit: str | None = None, *, kind: str = "model") -> str:
    """Return a link to a repo, at a commit if given; the text alone if `repo` is not a repo on the Hub.

    Addresses start at the root, so that they are right on every Hub.
    """
    if not is_repo(repo):
        return code(shown)
    prefix = "/datasets/" if kind == "dataset" else "/"
    revision = f"/tree/{commit}" if is_commit(commit) else ""
    return f"[{code(shown)}]({prefix}{quote(repo)}{revision})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """Return a Markdown table of cells that are Markdown; `align` has a letter for each column: l, r or c."""
    rule = {"l": ":---", "r": "---:", "c": ":---:"}
    lines = [header, [rule[letter] for letter in align], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown_rows(items: Sequence[T], row: Callable[[T], list[str]], *, whole: bool) -> list[list[str]]:
    """Return the rows of a table: of all items, or of the first and last ones with a row for those between.

    Args:
        items: the items.
        row: returns the cells of one item.
        whole: True for all items, however many there are.
    """
    first, last = (items, []) if whole else shown(items)
    rows = [row(item) for item in first]
    if last:
        hidden = len(items) - len(first) - len(last)
        rows.append(["…", f"{hidden:,} more", *[""] * (len(rows[0]) - 2)])
    return [*rows, *(row(item) for item in last)]


def details(summary: str, content: str) -> str:
    """Return `content` under a summary that a reader clicks to see it."""
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"
