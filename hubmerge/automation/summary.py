"""Summary of a run as Markdown, for the summary page of a CI job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hubmerge.cards.markup import code, plain, table
from hubmerge.report.accuracy import AccuracyMatrix, percent
from hubmerge.report.report import RunReport, StepReport
from hubmerge.report.shown import shown
from hubmerge.support.names import step_tag
from hubmerge.support.text import counted, short_commit


def summary_text(report: RunReport, done: Sequence[StepReport], addresses: Sequence[str]) -> str:
    """Return the summary of a run: new steps, their addresses, and the accuracy matrix.

    Args:
        report: the report of the stream.
        done: reports of the steps of this run.
        addresses: web addresses of the published steps.
    """
    lines = [f"## {counted(len(done), 'new step')}" if done else "## Nothing to do", ""]
    for step in done:
        published = next((one for one in addresses if one.endswith(f"/{step_tag(step.step)}")), None)
        where = f": <{published}>" if published is not None else ""
        source = f"{plain(step.reference)} at {code(short_commit(step.commit))}"
        lines.append(f"- step {step.step}: {plain(step.name)} ({source}){where}")
    matrix = report.accuracy_matrix()
    if matrix.steps:
        names = {step.step: step.name for step in report.steps}
        lines += ["", "### Accuracy", "", accuracy_table(matrix, names), ""]
        lines += [f"- **{value}** {plain(definition)}" for definition, value in matrix.measures()]
        lines += [f"- {plain(matrix.remark)}"] if matrix.remark else []
    return "\n".join(lines).rstrip() + "\n"


def accuracy_table(matrix: AccuracyMatrix, names: Mapping[int, str]) -> str:
    """Return the accuracy matrix as a Markdown table: a row for each step, a column for each task.

    Of many steps or tasks, the first and the last ones are shown.
    """
    tasks = [task for part in shown(matrix.tasks) for task in part]
    header = ["step", *map(plain, tasks), "average"]
    rows = [
        ["…", *[""] * (len(tasks) + 1)]
        if step is None
        else [
            f"{step} {plain(names.get(step, ''))}".rstrip(),
            *(percent(matrix.value(step, task)) for task in tasks),
            percent(matrix.average(step)),
        ]
        for step in matrix.shown_steps
    ]
    return table(header, rows, "l" + "r" * (len(header) - 1))


def append_summary(file: Path, text: str) -> None:
    """Append a summary to a file; CI services collect the summaries of several steps in one file."""
    with file.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(text + "\n")
