"""The accuracy matrix on a terminal: styles repeat what the numbers say."""

from __future__ import annotations

import pytest

from hubmerge.cli.score_table import BEST, HEAD, LEGEND, OTHER_ROW, WORST, print_scores, styled_table
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.support.console import RichConsole
from tests.cli.terminal import as_terminal

MATRIX = AccuracyMatrix(("digits", "shapes"))
ROWS = {1: {"digits": 0.9}, 2: {"digits": 0.5, "shapes": 0.7}, 3: {"digits": 0.6, "shapes": 0.7}}
for number, row in ROWS.items():
    MATRIX = MATRIX.record(number, row)
TEXT = "\n" + MATRIX.to_text({"digits": 0.1, "shapes": 0.2}, {"digits": 0.95, "shapes": 0.9}, defined=False)


def styles_of(text: str) -> dict[str, list[str]]:
    """Return the styled parts of the table by style."""
    table = styled_table(text, MATRIX.to_dict())
    found: dict[str, list[str]] = {}
    for span in table.spans:
        found.setdefault(str(span.style), []).append(table.plain[span.start : span.end])
    return found


def test_best_and_worst_scores_of_a_task_are_marked() -> None:
    found = styles_of(TEXT)
    assert (found[BEST], found[WORST]) == (["90.0"], ["50.0"])
    assert [line.split()[0] for line in found[OTHER_ROW] if not line.startswith("\n")] == ["base", "own"]
    assert found[HEAD][0].split() == ["step", "digits", "shapes", "average"]
    assert LEGEND in found[OTHER_ROW][-1]


def test_a_table_of_one_step_or_of_many_has_the_same_text() -> None:
    many = AccuracyMatrix(tuple(f"t{number}" for number in range(40)))
    for step in range(1, 41):
        many = many.record(step, {f"t{number}": (step * 7 + number) % 11 / 11 for number in range(step)})
    for matrix in (many, AccuracyMatrix(("a",)).record(1, {"a": 0.5}), AccuracyMatrix(())):
        text = "\n" + matrix.to_text({"a": 0.1}, {}, defined=False)
        plain = styled_table(text, matrix.to_dict()).plain
        assert plain.removesuffix(f"\n{LEGEND}") == text


@pytest.mark.parametrize("color", [True, False])
def test_color_is_for_terminals(color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with as_terminal(100, monkeypatch.setenv) as terminal:
        monkeypatch.setenv("NO_COLOR", "" if color else "1")
        print_scores(RichConsole(), TEXT, MATRIX.to_dict())
    screen = terminal.close()
    assert ("\x1b[1;32m90.0" in terminal.content) == color
    assert screen.text.split()[:4] == ["step", "digits", "shapes", "average"]
    assert (LEGEND in screen.text) == color
