"""What a plan says about possible mistakes: notes first, warnings last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from hubmerge.plan.run_plan import RunPlan
from hubmerge.plan.weight_files_text import weight_files_lines

Kind = Literal["files", "ignored", "loading", "note", "warning"]

_WARNING = "warning: "


def remarks(plan: RunPlan) -> list[tuple[Kind, str]]:
    """Return the remarks of a plan with their kinds; the warnings are last."""
    found = list(_remarks(plan))
    return [*(one for one in found if one[0] != "warning"), *(one for one in found if one[0] == "warning")]


def _remarks(plan: RunPlan) -> Iterator[tuple[Kind, str]]:
    for text in weight_files_lines(plan.weight_files):
        yield "files", text
    for text in plan.ignored:
        yield "ignored", text
    for text in plan.loading:
        yield "loading", text
    for text in (*plan.notes, *(note for task in plan.tasks for note in task.notes), *plan.licenses.notes):
        if text.startswith(_WARNING):
            yield "warning", text.removeprefix(_WARNING)
        else:
            yield "note", text
    for text in (*plan.other_tokens.values(), *plan.warnings):
        yield "warning", text
    for stage in plan.stages:
        for kind, text in _remarks(stage):
            yield kind, f"stage {stage.stream.loaded.stage}: {text}"
