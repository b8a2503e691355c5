"""Pieces of HTML: escaped text, tables that sort, sections."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hubmerge.support.chart_style import ink_on, map_color


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        body: its content, as HTML.
        value: the number it sorts by; None to sort by its text.
        heat: the number that its color shows, 0 to 1; None for no color.
        tip: the text that appears on hover.
        signed: True for a color between -1 and 1.
    """

    body: str
    value: float | None = None
    heat: float | None = None
    tip: str = ""
    signed: bool = False


EMPTY = Cell("")


def text(value: object) -> str:
    """Return a value as HTML text.

    >>> text("a < b")
    'a &lt; b'
    """
    return html.escape(str(value))


def number(value: float | None, digits: int = 3) -> Cell:
    """Return a cell with a number, or a dash."""
    return Cell("–") if value is None else Cell(f"{value:.{digits}g}", value)


def decimals(value: float, digits: int) -> str:
    """Return a number with so many decimals; what is rounded to zero has no sign.

    >>> decimals(-0.001, 2)
    '0.00'
    """
    return f"{round(value, digits) + 0.0:.{digits}f}"


def cosine(value: float | None, pair: str) -> Cell:
    """Return a colored cell with the cosine of two task vectors, whose names appear on hover; empty for None."""
    if value is None:
        return EMPTY
    return Cell(decimals(value, 2), value, heat=value, tip=f"{pair}: {value:.4f}", signed=True)


def tag(name: str, body: str, **attributes: str) -> str:
    """Return an element; `class_` and `for_` are written without the underscore, other underscores as hyphens.

    >>> tag("p", "text", class_="note")
    '<p class="note">text</p>'
    """
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return f"<{name}{told}>{body}</{name}>"


def section(anchor: str, title: str, *parts: str) -> str:
    """Return a section with a heading, or nothing if it has no content."""
    body = "\n".join(part for part in parts if part)
    return tag("section", f"<h2>{text(title)}</h2>\n{body}", id=anchor) if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str, *, sortable: bool = True) -> str:
    """Return a table in a box that scrolls sideways; the first cell of each row is its heading.

    Args:
        head: the titles of the columns, as text.
        rows: the cells.
        caption: what the table shows, as text.
        sortable: True for titles that sort the rows.
    """
    titles = "".join(_title(title, sortable=sortable and bool(title)) for title in head)
    body = "\n".join(tag("tr", "".join(_cell(cell, first=i == 0) for i, cell in enumerate(row))) for row in rows)
    name = "sortable" if sortable else "plain"
    inner = f"<caption>{text(caption)}</caption><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody>"
    return tag("div", tag("table", inner, class_=name), class_="wide", tabindex="0", role="region", aria_label=caption)


def _title(title: str, *, sortable: bool) -> str:
    inner = tag("button", text(title), type="button") if sortable else text(title)
    return tag("th", inner, scope="col") if title else "<td></td>"


def _cell(cell: Cell, *, first: bool) -> str:
    attributes = {}
    if cell.value is not None:
        attributes["data_value"] = repr(float(cell.value))
    if cell.heat is not None:
        attributes["class_"] = "heat"
        color = map_color(cell.heat, signed=cell.signed)
        attributes["style"] = f"background:{color};color:{ink_on(color)}"
    elif cell.value is not None and not first:
        attributes["class_"] = "number"
    if cell.tip:
        attributes["title"] = cell.tip
    return tag("th", cell.body, scope="row", **attributes) if first else tag("td", cell.body, **attributes)
