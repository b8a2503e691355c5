"""Report of one step, and the text of its file in `history/`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hubmerge.errors import HubmergeError
from hubmerge.report.inputs import CombinedPart, MergedModel, StackedLayers, TokenizerReport, omit_unused_data
from hubmerge.report.licenses import License, omit_unused_licenses
from hubmerge.report.reading import ReadReport
from hubmerge.report.step_statistics import MatrixStats, StepSimilarity, TensorSummary, omit_unused
from hubmerge.support.names import REPORT_FILE, history_file
from hubmerge.support.records import Number, RecordError, read_record, record
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from merge_recipes.canonical import canonical_report_json, text_digest

MetricValue = Number | list[list[int]]
"""Value of a metric: a number, or the counts of a confusion matrix (row: true class, column: predicted class)."""

Scores = dict[str, dict[str, MetricValue]]
"""Metric values by task and metric."""

T = TypeVar("T")


def number_or_none(value: MetricValue | None) -> float | None:
    """Return a score as a number, None for a table or nothing."""
    return float(value) if isinstance(value, (int, float)) else None


@record
@dataclass(frozen=True)
class StepReport:
    """Report of one step: the merged checkpoint, statistics of the merge, and scores of the merged model.

    Norms are Frobenius norms over all merged tensors together.
    """

    step: int  # 1-based
    name: str
    reference: str
    commit: str
    scale: Number | None  # lambda: merged model = base model + accumulated delta / scale; None if not measured
    accumulated_norm: Number | None
    task_vector_norm: Number | None
    tensors: TensorSummary = field(default_factory=TensorSummary)
    similarity: Number | None = None  # cosine between the task vector and the accumulated delta before this step
    scores: Scores = field(default_factory=dict)
    rounding: Number | None = None  # norm of the rounding error of the written weights / norm of the merged delta
    seconds: Number | None = None
    chain_digest: str | None = None  # of all inputs of this step
    files: dict[str, str] = field(default_factory=dict)  # weight file -> sha256
    state_digest: str | None = None  # sha256 of the manifest of the state after this step, if kept
    digest: str | None = None  # of this report and the digest of the step before
    drift: Number | None = None  # distance of the merged model from the base model: accumulated_norm / scale
    removed_share: Number | None = None  # of the whole task vector's squared norm
    matrices: tuple[MatrixStats, ...] = ()
    similarities: tuple[StepSimilarity, ...] = ()  # to the task vectors of all earlier steps
    warnings: tuple[str, ...] = ()
    licenses: tuple[License, ...] = ()  # of the checkpoint, then of its adapter; empty in streams of version 0.1.0
    head: str | None = None  # sha256 of heads/NAME.json, if the checkpoint has a head of its own
    revokes: str | None = None  # name of the entry that this step takes out of the merge
    replaces: tuple[str, ...] = ()  # names of the entries, of older commits, whose place the checkpoint takes
    combined: tuple[CombinedPart, ...] = ()  # streams whose states were added; this is the last step of the last one
    inputs: tuple[MergedModel, ...] = ()  # all models of a joint step; the last one has name, reference and commit
    tokenizer: TokenizerReport | None = None  # of a joint step that joined vocabularies
    layers: tuple[StackedLayers, ...] = ()  # of a joint step that stacks layers
    read: ReadReport | None = None  # the choice of the method that read the model out of the state

    def with_digest(self, previous: str | None) -> StepReport:
        """Return the report with its digest, given the digest of the step before (None for step 1)."""
        return dataclasses.replace(self, digest=text_digest(self.history_text(previous)))

    def history_text(self, previous: str | None) -> str:
        """Return the content of the step's file in `history/`: its SHA-256 is the digest of the step.

        Args:
            previous: the digest of the step before, None for step 1.
        """
        return canonical_report_json({**self.to_dict(), "digest": None, "previous": previous})

    @classmethod
    def from_history(cls, content: bytes, row: StepReport, previous: str | None) -> StepReport:
        """Return the report in the content of a step's file in `history/`.

        Args:
            content: the content.
            row: the step in `hubmerge.json`, which has the digest.
            previous: the digest of the step before, None for step 1.

        Raises:
            HubmergeError: the content does not have the digest, or is not the report of this step.
        """
        name = history_file(row.step)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != row.digest:
            raise HubmergeError(f"{name} does not match the digest in {REPORT_FILE}", file=name)
        try:
            values = read_strict_json(content)
        except StrictJSONError as error:
            raise HubmergeError(f"{name}: {error}", file=name) from error
        previous_digest = values.pop("previous", None) if isinstance(values, dict) else None
        step = read_as(step_adapter(), json.dumps(values), name)
        if previous_digest != previous or step.history_text(previous).encode() != content:
            raise HubmergeError(f"{name} does not follow the step before it", file=name)
        return dataclasses.replace(step, digest=row.digest)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        content = dataclasses.asdict(self)
        for model in content["inputs"]:
            omit_unused_licenses(model)
        omit_unused(content)
        if content.get("read") is not None:
            omit_unused_data(content["read"])
        omit_unused_licenses(content)
        return content

    @property
    def plain_licenses(self) -> list[dict[str, Any]]:
        """The licenses as plain JSON values."""
        content = {"licenses": [dataclasses.asdict(one) for one in self.licenses]}
        omit_unused_licenses(content)
        return content.get("licenses", [])

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepReport:
        """Return the report that `to_dict` made plain.

        Raises:
            HubmergeError: the values are not a step report.
        """
        return read_as(step_adapter(), json.dumps(data), "step report")


def read_as(adapter: TypeAdapter[T], text: str, where: str) -> T:
    """Return the record in a JSON text; `where` names the text in messages.

    Raises:
        HubmergeError: the text is not such a record.
    """
    try:
        return read_record(adapter, text)
    except RecordError as error:
        hint = "update hubmerge" if error.unknown_key else None
        raise HubmergeError(f"{where}: {error}", hint=hint, file=where) from error


@cache
def step_adapter() -> TypeAdapter[StepReport]:
    """Return the reader of step reports."""
    return TypeAdapter(StepReport)


def with_digests(steps: Sequence[StepReport], first: int) -> tuple[StepReport, ...]:
    """Return the reports with new digests from step `first` on, each of which includes the one before."""
    chained: list[StepReport] = []
    for step in steps:
        known = step.step < first and step.digest is not None
        chained.append(step if known else step.with_digest(chained[-1].digest if chained else None))
    return tuple(chained)
