"""Whole reports of all steps, from their files in `history/`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hubmerge.errors import HubmergeError
from hubmerge.report.report import RunReport
from hubmerge.report.step import StepReport
from hubmerge.support.names import REPORT_FILE, history_file

ReadHistory = Callable[[int], "bytes | None"]
"""Returns the content of the file of a step in `history/`, None if it is missing."""


def completed(report: RunReport, read: ReadHistory) -> RunReport:
    """Return a report with every step whole, in place of the short forms in `hubmerge.json`.

    Args:
        report: the report, as it was read.
        read: reads the file of a step in `history/`.

    Raises:
        HubmergeError: a file is missing, is not as it was published, or does not agree with the report.
    """
    if report.version < 3:
        return report
    whole = dataclasses.replace(report, steps=_whole_steps(report, len(report.steps), read))
    for row, short in zip(report.steps, whole.abridged().steps, strict=True):
        if row != short:
            name = history_file(row.step)
            raise HubmergeError(f"{name} does not agree with {REPORT_FILE}", file=name)
    return whole


def report_until(report: RunReport, step: int, read: ReadHistory) -> RunReport:
    """Return a report as it was after a step. Short forms of later reports lack what it had, so it reads the files.

    Args:
        report: the report, as it was read.
        step: the step.
        read: reads the file of a step in `history/`.

    Raises:
        HubmergeError: a file is missing, or is not as it was published.
    """
    earlier = report.until(step)
    if report.version < 3 or step >= len(report.steps):
        return earlier
    return dataclasses.replace(earlier, steps=_whole_steps(report, step, read)).abridged()


def _whole_steps(report: RunReport, last: int, read: ReadHistory) -> tuple[StepReport, ...]:
    steps: list[StepReport] = []
    for row in report.steps[:last]:
        content, name = read(row.step), history_file(row.step)
        if content is None:
            raise HubmergeError(f"{name} is missing", hint="restore it from the history of the repo", file=name)
        steps.append(StepReport.from_history(content, row, steps[-1].digest if steps else None))
    return tuple(steps)
