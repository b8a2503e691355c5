"""Charts of the report page: ticks, lines, dots and maps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hubmerge.report_page import charts
from hubmerge.report_page.axes import round_ticks, whole_ticks
from hubmerge.report_page.charts import Line, dot_chart, line_chart
from hubmerge.report_page.scores import MOST_LINES
from hubmerge.support.chart_style import COLORS, MAP, SIGNED_MAP, ink_on, map_color, map_place
from tests.checks import every
from tests.report_page.reader import read


def lines(number: int) -> list[Line]:
    return [Line(f"task {i}", ((1, 0.5), (2, 0.25))) for i in range(number)]


def test_steps_on_axes_are_whole() -> None:
    assert whole_ticks(1, 1) == [1]
    assert whole_ticks(1, 500)[:3] == [1, 50, 100]
    assert every(isinstance(step, int) for step in whole_ticks(3, 77))
    assert round_ticks(0.0, 1e-3)[1] == pytest.approx(2e-4)


def test_lines_differ_without_their_colors() -> None:
    """Dashes and marks alone tell apart as many lines as a page draws; the legend shows them too."""
    chart = line_chart(lines(MOST_LINES + 1), "accuracy")
    styles = re.findall(r'stroke-dasharray="([^"]*)"/><path class="mark" d="M[\d.]+ [\d.]+([^"]+)"', chart)
    drawn, legend = styles[: MOST_LINES + 1], styles[MOST_LINES + 1 :]
    assert len(set(drawn)) == MOST_LINES + 1
    assert drawn == legend


def test_steps_of_charts_are_whole_and_other_numbers_are_not() -> None:
    def ticks(chart: str) -> list[float]:
        return [float(one) for one in re.findall(r'class="x"[^>]*>([\d.]+)<', chart)]

    assert ticks(line_chart(lines(1), "accuracy")) == [1, 2]
    swept = line_chart([Line("opcm", ((0.1, 50.0), (0.9, 40.0)), spread=(1.0, 0.5))], "accuracy", across="alpha")
    assert ticks(swept) == [0.2, 0.4, 0.6, 0.8]
    assert "opcm, alpha 0.1: 50 ± 1" in swept


def test_a_dot_for_each_order() -> None:
    chart = dot_chart([("a" * 40, [1.0, 2.0]), ("b", [3.0]), ("none", [])], "accuracy")
    assert chart.count('class="mark"') == 3
    assert "a" * 27 + "…" in chart
    assert f"{'a' * 40}: mean 1.5" in chart
    assert dot_chart([("none", [])], "accuracy") == line_chart([Line("a", ())], "accuracy") == ""
    read(chart)


def test_maps_have_the_colors_of_the_pictures() -> None:
    from matplotlib import colormaps

    for value in (-0.2, 0.0, 0.3, 0.77, 1.0, 1.5):
        expected = colormaps[MAP](map_place(value))[:3]
        parts = [int(map_color(value)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert parts == pytest.approx(expected, abs=0.02)
        signed = colormaps[SIGNED_MAP]((min(max(value, -1.0), 1.0) + 1) / 2)[:3]
        parts = [int(map_color(value, signed=True)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert parts == pytest.approx(signed, abs=0.02)


def test_text_on_maps_is_readable() -> None:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for color in [map_color(i / 50) for i in range(51)] + [map_color(i / 25 - 1, signed=True) for i in range(51)]:
        ink = 1.0 if ink_on(color) == "#fff" else 0.0
        dark, light = sorted((ink, luminance(color)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color


def test_the_style_of_the_page_has_the_colors_of_the_pictures() -> None:
    style = (Path(charts.__file__).parent / "page.css").read_text(encoding="utf-8")
    light = style[: style.index("@media")]
    assert tuple(re.findall(r"--c\d: (#\w+);", light)) == COLORS
