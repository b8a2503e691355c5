"""Licenses of the inputs in the card and in the file NOTICE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hubmerge.cards.markup import one_line, plain, table
from hubmerge.report.inputs import tokenizer_input
from hubmerge.report.licenses import License
from hubmerge.report.report import MergedModel, ModelReport, RunReport
from hubmerge.support.text import listed

BASE_MODEL = "base model"

NAMES_SHOWN = 5
"""Number of inputs that a row of the table names."""

_RULE = "-" * 80
_NOTICE = "notice"


@dataclass(frozen=True)
class StatedLicense:
    """License of one input, as the report has it: its name, its reference with the commit, and the license."""

    name: str
    model: str
    license: License


def stated_licenses(report: RunReport) -> list[StatedLicense]:
    """Return the licenses of base model, checkpoints, adapters and a lent tokenizer, without revoked ones.

    Reports of streams that version 0.1.0 began have none.
    """
    revoking = [step for step in report.steps if step.revokes is not None]
    revoked = {step.revokes for step in revoking} | {step.name for step in revoking}
    kept = [model for model in report.models if model.name not in revoked]
    found = [*_stated(report.base_model, kept, report.tokenizer)]
    for stage in report.stages:
        inputs = _stated(stage.base_model, stage.models, stage.tokenizer)
        found += [replace(one, name=f"{one.name} of {stage.name}") for one in inputs]
    return found


def _stated(base: ModelReport, models: Iterable[MergedModel], lent: MergedModel | None) -> Iterator[StatedLicense]:
    """Yield the licenses of the inputs of a merge, that of a model before that of its adapter."""
    start = MergedModel(BASE_MODEL, base.reference, base.commit, base.licenses)
    for model in (start, *models, *tokenizer_input(lent)):
        for name, stated in zip((model.name, f"adapter of {model.name}"), model.licenses, strict=False):
            yield StatedLicense(name, f"{model.reference} at {model.commit}", stated)


def needs_notice(report: RunReport, merged: License) -> bool:
    """Return True if the inputs have other licenses than the merged model, or files with notices."""
    inputs = stated_licenses(report)
    return any(one.license.key != merged.key or notice_files(one.license) for one in inputs)


def notice_files(stated: License) -> list[str]:
    """Return the files with notices of an input."""
    return [name for name in stated.files if name.lower().startswith(_NOTICE)]


def license_section(report: RunReport, merged: License, *, notice: bool) -> list[str]:
    """Return the part of the card about licenses, nothing if the report has none."""
    inputs = stated_licenses(report)
    if not inputs:
        return []
    groups: dict[tuple[object, ...], list[StatedLicense]] = {}
    for one in inputs:
        groups.setdefault(one.license.key, []).append(one)
    rows = [
        [
            plain(group[0].license.text),
            group[0].license.family.value,
            plain(listed([one.name for one in group], NAMES_SHOWN)),
        ]
        for group in groups.values()
    ]
    text = f"This model: {plain(merged.text)}. Its inputs, as their cards state it at the pinned commits:\n\n"
    text += table(["license", "kind", "inputs"], rows, "lll")
    if notice:
        text += "\n\nThe file [NOTICE](NOTICE) lists them one by one."
    return ["## Licenses", text]


def notice_text(report: RunReport, merged: License, texts: Sequence[tuple[str, str]]) -> str:
    """Return the file NOTICE: every input with its license, then the notices of the inputs.

    Args:
        report: the report.
        merged: the license of the merged model.
        texts: title and text of each notice.
    """
    lines = [
        one_line(f"This model was merged from the models below. Its license: {merged.text}."),
        "The licenses of the models, as their cards state them at these commits:",
        "",
        *_lines(report),
    ]
    for title, text in texts:
        lines += ["", _RULE, one_line(title), _RULE, "", text.strip("\n")]
    return "\n".join(lines) + "\n"


def _lines(report: RunReport) -> Iterator[str]:
    for one in stated_licenses(report):
        files = f"; see {', '.join(one.license.files)} there" if one.license.files else ""
        link = f", {one.license.link}" if one.license.link else ""
        yield one_line(f"{one.name}: {one.model}: {one.license.text}{link}{files}")
