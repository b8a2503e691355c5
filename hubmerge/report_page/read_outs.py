"""Section of the page about the choice of the method that reads the merged model out of the state."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.report.reading import ReadReport
from hubmerge.report.step import StepReport
from hubmerge.report_page.markup import Cell, section, table, tag, text


def read_out_section(steps: Sequence[StepReport]) -> str:
    """Return the section, nothing if the last step has no choice.

    Earlier steps are shown if they chose between the read-outs of the last one, by its rules.
    """
    last = steps[-1].read
    if last is None or last.choice is None:
        return ""
    found = [(step, step.read) for step in steps if step.read is not None and step.read.same_readings(last)]
    head = ["step", *(one.text for one in last.readings), "chosen"]
    caption = f"{last.metric} on the task {last.task} of the model that each method reads, the {last.best} is chosen"
    return section(
        "read-outs", "Choice of the read-out", _summary(last), table(head, [_row(*one) for one in found], caption)
    )


def _summary(read: ReadReport) -> str:
    chosen = "" if read.choice is None else f"<code>{text(read.choice.text)}</code>"
    data = f"<code>{text(read.split)}</code> of <code>{text(read.dataset)}</code>"
    note = " The task is scored too, so its score is favored by the choice." if read.scored else ""
    return tag(
        "p",
        f"The merged model was read out of the state by {chosen}, the best of {len(read.readings)} by "
        f"{text(read.metric)} on the task <code>{text(read.task)}</code> ({data}).{note}",
    )


def _row(step: StepReport, read: ReadReport) -> list[Cell]:
    scores = [
        Cell(f"<strong>{one.score:.4f}</strong>" if place == read.chosen else f"{one.score:.4f}", float(one.score))
        for place, one in enumerate(read.readings, start=1)
    ]
    chosen = "" if read.choice is None else text(read.choice.text)
    return [Cell(f"{step.step} {text(step.name)}", step.step), *scores, Cell(chosen)]
