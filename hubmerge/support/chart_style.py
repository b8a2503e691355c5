"""One style for the pictures of cards, studies and reports: lines that differ without color, and colors of maps."""

from __future__ import annotations

from dataclasses import dataclass

COLORS = ("#0b57a4", "#a8420a", "#0a7350", "#8f3d78", "#6b5b00", "#5b6470", "#b3123f")
"""Colors of lines on white; page.css has lighter ones for dark screens."""

DASHES = ((), (6, 3), (2, 3), (8, 3, 2, 3), (12, 4))
"""Lengths of dashes and gaps; the first line is solid."""

MARKS = "os^DvXP"
"""Marks of points, as matplotlib names them."""

MAP = "YlGnBu"
"""Colormap of accuracies: even lightness, readable for color-blind readers and in gray."""

SIGNED_MAP = "RdBu_r"
"""Colormap of numbers from -1 to 1."""

_STOPS = ("ffffd9", "edf8b1", "c7e9b4", "7fcdbb", "41b6c4", "1d91c0", "225ea8", "253494", "081d58")
_SIGNED_STOPS = (
    "053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"
)  # fmt: skip


@dataclass(frozen=True)
class LineStyle:
    """Style of one line: a color, dashes and a mark."""

    color: int
    dashes: tuple[int, ...]
    mark: str


def line_style(number: int) -> LineStyle:
    """Return the style of a line; lines of one color have different marks, and the first 25 differ without colors.

    >>> line_style(0), line_style(7).mark
    (LineStyle(color=0, dashes=(), mark='o'), 's')
    """
    rounds, color = divmod(number, len(COLORS))
    return LineStyle(color, DASHES[number % len(DASHES)], MARKS[(color + rounds) % len(MARKS)])


def map_place(share: float) -> float:
    """Return the place in the colormap of a number between 0 and 1; its ends are too faint and too dark."""
    return 0.04 + 0.84 * min(max(share, 0.0), 1.0)


def map_color(value: float, *, signed: bool = False) -> str:
    """Return the color of a number on maps: from 0 to 1, or from -1 to 1 if signed.

    >>> map_color(0.0), map_color(0.0, signed=True)
    ('#f9fdcc', '#f7f7f7')
    """
    if signed:
        return _between(_SIGNED_STOPS, (min(max(value, -1.0), 1.0) + 1.0) / 2.0)
    return _between(_STOPS, map_place(value))


def ink_on(color: str) -> str:
    """Return black or white, whichever is easier to read on a color.

    >>> ink_on("#ffffd9"), ink_on("#081d58")
    ('#000', '#fff')
    """
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in _parts(color[1:])]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#fff" if luminance < 0.179 else "#000"


def _between(stops: tuple[str, ...], share: float) -> str:
    place = share * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    parts = zip(_parts(stops[index]), _parts(stops[index + 1]), strict=True)
    mixed = (round(255 * (low + (place - index) * (high - low))) for low, high in parts)
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _parts(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) / 255 for i in (0, 2, 4)]
