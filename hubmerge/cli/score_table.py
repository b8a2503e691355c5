"""The accuracy matrix at the end of a run, with styles on a terminal.

A style repeats what the numbers and the names of the rows say: the best score of a task is bold and green, the worst
one underlined, and the rows of the base model and of the own checkpoints are faint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from hubmerge.support.console import RichConsole
from hubmerge.support.progress import Progress
from hubmerge.support.redaction import for_terminal

BEST, WORST, OTHER_ROW, HEAD = "bold green", "underline", "dim", "bold"
LEGEND = "bold: best score of a task; underlined: worst"


def print_scores(progress: Progress, text: str, scores: Mapping[str, Any] | None) -> None:
    """Print the accuracy matrix.

    Args:
        progress: the receiver of the output.
        text: the table, as `StepRun.scores_text` returns it.
        scores: the values of the table, as `StepRun.scores` returns them.
    """
    if isinstance(progress, RichConsole) and progress.is_colored and scores is not None:
        progress.note_styled(styled_table(f"\n{text}", scores))
    else:
        progress.note(f"\n{text}")


def styled_table(text: str, scores: Mapping[str, Any]) -> Text:
    """Return the table with styles, and a legend below it."""
    table = Text(for_terminal(text))
    offset, columns = 0, dict[str, int]()
    for line in text.splitlines():
        cells = [(found.start(), found.end()) for found in re.finditer(r"\S+", line)]
        words = line.split()
        if words[:1] == ["step"] and words[-1:] == ["average"] and not columns:
            columns = dict(zip(words[1:-1], range(1, len(words)), strict=False))
            table.stylize(HEAD, offset, offset + len(line))
        elif columns and words[:1] in (["base"], ["own"]):
            table.stylize(OTHER_ROW, offset, offset + len(line))
        elif columns and words and words[0] in scores["rows"] and len(words) == len(columns) + 2:
            for style, column in _styles(words[0], columns, scores["rows"]):
                begin, end = cells[column]
                table.stylize(style, offset + begin, offset + end)
        elif columns and not words:
            break  # other tables follow
        offset += len(line) + 1
    marked = any(span.style == BEST for span in table.spans)
    return table.append(f"\n{LEGEND}", style="dim") if marked else table


def _styles(
    step: str, columns: Mapping[str, int], rows: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[str, int]]:
    """Yield the style and the column of each cell of a row that is the best or the worst of its task."""
    for task, column in columns.items():
        values = [row[task] for row in rows.values() if task in row]
        value = rows[step].get(task)
        if value is None or min(values) == max(values):
            continue
        if value == max(values):
            yield BEST, column
        elif value == min(values):
            yield WORST, column
