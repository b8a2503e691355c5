"""What a card says about the stages of a model: the merges before it, whose results it was merged from."""

from __future__ import annotations

from collections.abc import Callable

from hubmerge.cards.markup import code, plain, table
from hubmerge.report.report import RunReport, StageReport
from hubmerge.support.text import short_commit

Link = Callable[[str, str], str]
"""Function that returns a model with a link, from its reference and commit."""


def stages_section(report: RunReport, link: Link) -> list[str]:
    """Return the part of the card about stages, nothing if there are none."""
    if not report.stages:
        return []
    rows = [row for stage in report.stages for row in _rows(stage, link)]
    text = "Models of these stages were merged before, in this order, from other documents of the recipe:\n\n"
    return ["## Stages", text + table(["stage", "method", "model", "commit"], rows, "llll")]


def _rows(stage: StageReport, link: Link) -> list[list[str]]:
    title = [plain(stage.name), code(stage.merge_method)]
    models = [("base model ", stage.base_model.reference, stage.base_model.commit)]
    models += [("", model.reference, model.commit) for model in stage.models]
    return [
        [*(title if number == 0 else ("", "")), f"{role}{link(reference, commit)}", code(short_commit(commit))]
        for number, (role, reference, commit) in enumerate(models)
    ]
