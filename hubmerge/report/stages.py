"""Reports of stages: the merges of other documents of the recipe's file, whose results the step uses."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from hubmerge.report.inputs import MergedModel, ModelReport, omit_unused_tokenizer
from hubmerge.report.licenses import omit_unused_licenses
from hubmerge.support.records import record


@record
@dataclass(frozen=True)
class StageReport:
    """A merge before the step: its method, its models at their commits, and the weight files of its result."""

    name: str
    merge_method: str
    digest: str  # of everything that the result depends on; in the step, the commit of the model
    base_model: ModelReport
    models: tuple[MergedModel, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # weight file -> sha256
    tokenizer: MergedModel | None = None  # the model that only lends its tokenizer


def omit_unused_stages(report: MutableMapping[str, Any]) -> None:
    """Remove the stages from a plain report if there are none, and empty licenses from those that there are."""
    if not report["stages"]:
        del report["stages"]
    for stage in report.get("stages", ()):
        for model in (stage["base_model"], *stage["models"]):
            omit_unused_licenses(model)
        omit_unused_tokenizer(stage)
