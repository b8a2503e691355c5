"""Tables of a study in Markdown and LaTeX: mean and standard deviation over the orders of each variant."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.report.accuracy import (
    AVERAGE_ACCURACY_DEFINITION,
    BACKWARD_TRANSFER_DEFINITION,
    FORGETTING_DEFINITION,
    SHARE_OF_OWN_DEFINITION,
)
from hubmerge.study.answers import PAIRED_DEFINITION, mean_answers, paired_difference
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


def table_rows(results: Sequence[CellResult], references: References) -> tuple[list[str], Rows]:
    """Return header and rows: the references, then a row for each label, by number of tasks."""
    header = ["merged by", "tasks", "merges", *TITLES, "to the first"]
    rows: Rows = []
    for (tasks,), same in grouped(results, "tasks").items():
        names = set(same[0].accuracies.tasks)
        if all(set(result.accuracies.tasks) == names for result in same):
            for label, scores in (("base model", references.base), ("own checkpoints", references.own)):
                mean = Summary.of(scores.get(name) for name in names)
                rows.append([label, str(tasks), "", mean_percent(mean), "", "", "", ""])
        groups = grouped(same, "label")
        first = mean_answers([result.answers for result in next(iter(groups.values()))])
        for number, ((label,), group) in enumerate(groups.items()):
            summaries = [Summary.of(getattr(result, measure) for result in group) for measure in MEASURES]
            difference = (
                paired_difference(mean_answers([result.answers for result in group]), first) if number else None
            )
            cells = [*(summary.percent() for summary in summaries), difference.points() if difference else ""]
            rows.append([label, str(tasks), str(len(group)), *cells])
    return header, rows


def mean_percent(summary: Summary) -> str:
    """Return the mean in percent, without the deviation."""
    return Summary(summary.mean, None, summary.count).percent()


def markdown(results: Sequence[CellResult], references: References) -> str:
    """Return the table in Markdown, with definitions below it."""
    header, rows = table_rows(results, references)
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---', *['---:'] * (len(header) - 1)])}|"]
    lines += [f"| {' | '.join(_cell(text) for text in row)} |" for row in rows]
    return "\n".join([*lines, "", *DEFINITIONS]) + "\n"


def latex(results: Sequence[CellResult], references: References) -> str:
    """Return the table in LaTeX with booktabs."""
    header, rows = table_rows(results, references)
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
