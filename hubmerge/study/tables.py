"""Tables of a study in Markdown and LaTeX: mean and standard deviation over the orders of each variant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hubmerge.report.accuracy import (
    AVERAGE_ACCURACY_DEFINITION,
    BACKWARD_TRANSFER_DEFINITION,
    FORGETTING_DEFINITION,
    SHARE_OF_OWN_DEFINITION,
)
from hubmerge.study.answers import PAIRED_DEFINITION, PairedDifference, mean_answers, paired_difference
from hubmerge.study.results import CellResult, References, Summary, grouped

MEASURES = ("average", "backward_transfer", "forgetting", "share_of_own")
TITLES = ("accuracy", "backward transfer", "forgetting", "share kept")

DEFINITIONS = (
    "All values are in percent: mean ± standard deviation (of the sample) over the merges.",
    f"Accuracy: {AVERAGE_ACCURACY_DEFINITION}.",
    f"Backward transfer: {BACKWARD_TRANSFER_DEFINITION}.",
    f"Forgetting: {FORGETTING_DEFINITION}.",
    f"Share kept: {SHARE_OF_OWN_DEFINITION}.",
    f"To the first: {PAIRED_DEFINITION}.",
)
"""What the numbers of the table mean."""

Rows = list[list[str]]


@dataclass(frozen=True)
class TableRow:
    """One row of the table, as numbers: a variant, or with 0 merges the base model or the own checkpoints.

    `to_first` is the difference to the first variant on equal examples; None for that one, and without kept answers.
    """

    label: str
    tasks: int
    merges: int
    accuracy: Summary
    measures: tuple[Summary, ...] = ()
    to_first: PairedDifference | None = None

    def cells(self) -> list[str]:
        """Return the texts of the row, in percent."""
        difference = "" if self.to_first is None else self.to_first.points()
        if not self.merges:
            return [self.label, str(self.tasks), "", mean_percent(self.accuracy), *[""] * len(TITLES)]
        values = [summary.percent() for summary in (self.accuracy, *self.measures)]
        return [self.label, str(self.tasks), str(self.merges), *values, difference]

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON values: shares, not percent."""
        row: dict[str, Any] = {"label": self.label, "tasks": self.tasks, "merges": self.merges}
        names = ("accuracy", *MEASURES[1:])
        row |= dict.fromkeys(names)
        for name, summary in zip(names, (self.accuracy, *self.measures), strict=False):
            row[name] = None if summary.mean is None else {"mean": summary.mean, "deviation": summary.deviation}
        return {**row, "to_first": None if self.to_first is None else asdict(self.to_first)}


def summary_rows(results: Sequence[CellResult], references: References) -> list[TableRow]:
    """Return the rows by number of tasks: the references, then a row for each label."""
    rows: list[TableRow] = []
    for (tasks,), same in grouped(results, "tasks").items():
        names = set(same[0].accuracies.tasks)
        if all(set(result.accuracies.tasks) == names for result in same):
            for label, scores in (("base model", references.base), ("own checkpoints", references.own)):
                rows.append(TableRow(label, tasks, 0, Summary.of(scores.get(name) for name in names)))
        groups = grouped(same, "label")
        first = mean_answers([result.answers for result in next(iter(groups.values()))])
        for number, ((label,), group) in enumerate(groups.items()):
            accuracy, *measures = (Summary.of(getattr(result, measure) for result in group) for measure in MEASURES)
            answers = mean_answers([result.answers for result in group])
            difference = paired_difference(answers, first) if number else None
            rows.append(TableRow(label, tasks, len(group), accuracy, tuple(measures), difference))
    return rows


def table_rows(rows: Sequence[TableRow]) -> tuple[list[str], Rows]:
    """Return the header and the rows as texts."""
    return ["merged by", "tasks", "merges", *TITLES, "to the first"], [row.cells() for row in rows]


def mean_percent(summary: Summary) -> str:
    """Return the mean in percent, without the deviation."""
    return Summary(summary.mean, None, summary.count).percent()


def markdown(summaries: Sequence[TableRow]) -> str:
    """Return the table in Markdown, with definitions below it."""
    header, rows = table_rows(summaries)
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---', *['---:'] * (len(header) - 1)])}|"]
    lines += [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    return "\n".join([*lines, "", *DEFINITIONS]) + "\n"


def as_json(summaries: Sequence[TableRow]) -> str:
    """Return the table as JSON: its rows, and what the numbers mean."""
    rows = [row.to_dict() for row in summaries]
    return json.dumps({"rows": rows, "definitions": list(DEFINITIONS[1:])}, indent=2, ensure_ascii=False) + "\n"


def latex(summaries: Sequence[TableRow]) -> str:
    """Return the table in LaTeX with booktabs."""
    header, rows = table_rows(summaries)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, header)) + r" \\", r"\midrule"]
    for row in rows:
        numbers = [f"${text.replace('±', chr(92) + 'pm')}$" if text not in {"", "-"} else text for text in row[1:]]
        lines.append(" & ".join([_escaped(row[0]), *numbers]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _escaped(text: str) -> str:
    for character in "\\&%$#_{}":
        text = text.replace(character, r"\textbackslash{}" if character == "\\" else f"\\{character}")
    return text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
