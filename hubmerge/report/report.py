"""Report of a run, the content of `hubmerge.json`: one `StepReport` for each step.

The classes are frozen dataclasses that are written as JSON and read back without loss. Keys are sorted and floats are
written with `repr`, so that equal reports give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hubmerge.errors import HubmergeError
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.report.file_list import FileList, FileRecord
from hubmerge.report.inputs import ModelReport, TaskReport, main_metric
from hubmerge.report.licenses import License, omit_unused_licenses
from hubmerge.report.step_statistics import MatrixStats, Spread, StepSimilarity, TensorSummary, omit_unused
from hubmerge.support.names import REPORT_FILE
from hubmerge.support.records import Number, RecordError, read_record, record
from hubmerge.support.strict_json import StrictJSONError, read_strict_json
from merge_recipes.canonical import canonical_document, canonical_report_json, text_digest

__all__ = [
    "FileList",
    "FileRecord",
    "License",
    "MatrixStats",
    "MetricValue",
    "ModelReport",
    "RunReport",
    "Scores",
    "Spread",
    "StepReport",
    "StepSimilarity",
    "TaskReport",
    "TensorSummary",
    "main_metric",
]

REPORT_VERSION = 2
"""Version of the form that is written. Version 1, of hubmerge 0.1.0, has no list of all files and no seal."""

READABLE_VERSIONS = (1, 2)
"""Versions of the form that can be read."""

MetricValue = Number | list[list[int]]
"""Value of a metric: a number, or the counts of a confusion matrix (row: true class, column: predicted class)."""

Scores = dict[str, dict[str, MetricValue]]
"""Metric values by task and metric."""

T = TypeVar("T")


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
    scale: Number  # lambda: merged model = base model + accumulated delta / scale
    accumulated_norm: Number
    task_vector_norm: Number
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

    def with_digest(self, previous: str | None) -> StepReport:
        """Return the report with its digest, given the digest of the step before (None for step 1)."""
        content = {**self.to_dict(), "digest": None, "previous": previous}
        return dataclasses.replace(self, digest=_digest(content))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        content = dataclasses.asdict(self)
        omit_unused(content)
        omit_unused_licenses(content)
        return content

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepReport:
        """Return the report that `to_dict` made plain.

        Raises:
            HubmergeError: the values are not a step report.
        """
        return _read(_step_adapter(), json.dumps(data), "step report")


@record
@dataclass(frozen=True)
class RunReport:
    """Report of a run after its last finished step, the content of `hubmerge.json`.

    `to_json` writes the newest version of the form, with its seal. A report that was read keeps its version and seal.
    """

    base_model: ModelReport
    merge_method: str
    recipe_digest: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    base_scores: Scores = field(default_factory=dict)
    own_scores: Scores = field(default_factory=dict)  # of each task's own checkpoint alone
    versions: dict[str, str] = field(default_factory=dict)  # tool -> version
    all_files: FileList = field(default_factory=dict)  # of the last step, except this report; empty in version 1
    version: int = field(default=REPORT_VERSION, compare=False)
    seal: str | None = field(default=None, compare=False)  # digest of everything else in the report

    def with_step(self, step: StepReport) -> RunReport:
        """Return the report with a step added or replaced, and the digests computed anew."""
        steps = {report.step: report for report in self.steps} | {step.step: step}
        chained = _with_digests([steps[number] for number in sorted(steps)])
        kept = self.all_files if self.steps and self.steps[-1].step == chained[-1].step else {}
        return dataclasses.replace(self, steps=chained, all_files=kept)

    def broken_digest(self) -> int | None:
        """Return the first step whose digest does not match its content, None if all match."""
        for report, expected in zip(self.steps, _with_digests(self.steps), strict=True):
            if report.digest != expected.digest:
                return report.step
        return None

    @property
    def has_broken_seal(self) -> bool:
        """True if the report was changed after it was sealed. A report of version 1 has no seal to break."""
        return self.version > 1 and self.seal != self._digest()

    def _digest(self) -> str:
        return _digest({**self.to_dict(), "seal": None})

    def until(self, step: int) -> RunReport:
        """Return the report as it was after `step`, without later steps and their tasks."""
        files = {} if self.steps and self.steps[-1].step > step else self.all_files
        seen = {task.name for task in self.tasks if task.step <= step}
        return dataclasses.replace(
            self,
            tasks=tuple(task for task in self.tasks if task.step <= step),
            base_scores={name: scores for name, scores in self.base_scores.items() if name in seen},
            steps=tuple(report for report in self.steps if report.step <= step),
            own_scores={name: scores for name, scores in self.own_scores.items() if name in seen},
            all_files=files,
        )

    def accuracy_matrix(self) -> AccuracyMatrix:
        """Return R[t][j], the main metric of every task j after every step t."""
        matrix = AccuracyMatrix(tuple(task.name for task in self.tasks), tuple(task.step for task in self.tasks))
        for report in self.steps:
            if row := self.main_scores(report.scores):
                matrix = matrix.record(report.step, row)
        return matrix

    def main_scores(self, scores: Scores) -> dict[str, float]:
        """Return each task's main metric in `scores`, for the tasks that have it."""
        found = {}
        for task in self.tasks:
            value = scores.get(task.name, {}).get(task.main_metric)
            if isinstance(value, (int, float)):
                found[task.name] = float(value)
        return found

    def other_metrics(self) -> list[tuple[str, str, list[float | None]]]:
        """Return the metrics outside of the accuracy matrix.

        Returns:
            (task, metric, [value of the base model, of the own checkpoint, of the merged model]) for each metric.
        """
        if not self.steps:
            return []
        columns = (self.base_scores, self.own_scores, self.steps[-1].scores)
        return [
            (task.name, metric, [_number(scores.get(task.name, {}).get(metric)) for scores in columns])
            for task in self.tasks
            for metric, value in columns[-1].get(task.name, {}).items()
            if metric != task.main_metric and _number(value) is not None
        ]

    def other_metrics_text(self) -> str:
        """Return `other_metrics` as a table for a terminal, an empty text if there are none."""
        rows = [["task", "metric", "base model", "own checkpoint", "this model"]]
        for task, metric, values in self.other_metrics():
            rows.append([task, metric, *("-" if value is None else f"{value:.4f}" for value in values)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(lines) if len(rows) > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        content = dataclasses.asdict(self)
        for step in content["steps"]:
            omit_unused(step)
            omit_unused_licenses(step)
        omit_unused_licenses(content["base_model"])
        return content

    @property
    def adds_up_statistics(self) -> bool:
        """True if the steps were merged without averaging: there are no statistics, or they count as weights."""
        return bool(self.steps) and self.steps[0].tensors.averaged is None

    def to_json(self) -> str:
        """Return the text of `hubmerge.json`, sealed: sorted keys, two spaces, a newline at the end."""
        newest = dataclasses.replace(self, version=REPORT_VERSION)
        sealed = {**newest.to_dict(), "seal": newest._digest()}
        return canonical_document(sealed, indent=2, ascii_only=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunReport:
        """Return the report that `to_dict` made plain.

        Raises:
            HubmergeError: the report has a newer format, or the values are not a report.
        """
        return cls.from_json(json.dumps(data))

    @classmethod
    def from_json(cls, text: str) -> RunReport:
        """Return the report that `to_json` wrote.

        Raises:
            HubmergeError: the report has a newer format, or the text is not a report.
        """
        try:
            data = read_strict_json(text)
        except StrictJSONError as error:
            raise HubmergeError(f"{REPORT_FILE}: {error}", file=REPORT_FILE) from error
        version = data.get("version") if isinstance(data, Mapping) else None
        expected = " or ".join(map(str, READABLE_VERSIONS))
        if version not in READABLE_VERSIONS or isinstance(version, (bool, float)):
            raise HubmergeError(
                f"{REPORT_FILE}: format version {version!r} is unknown, expected {expected}",
                hint="update hubmerge, or publish to a new repo",
                file=REPORT_FILE,
            )
        if version == 1 and data.keys() & {"all_files", "seal"}:
            raise HubmergeError(f"{REPORT_FILE}: a report of version 1 has no seal", file=REPORT_FILE)
        report = _read(_run_adapter(), text, REPORT_FILE)
        numbers = [step.step for step in report.steps]
        if numbers != list(range(1, len(numbers) + 1)):
            raise HubmergeError(
                f"{REPORT_FILE}: steps are not numbered 1, 2, 3 and so on",
                hint="restore the file from the repo's history",
                file=REPORT_FILE,
            )
        return report


@cache
def _step_adapter() -> TypeAdapter[StepReport]:
    return TypeAdapter(StepReport)


@cache
def _run_adapter() -> TypeAdapter[RunReport]:
    return TypeAdapter(RunReport)


def _read(adapter: TypeAdapter[T], text: str, where: str) -> T:
    try:
        return read_record(adapter, text)
    except RecordError as error:
        hint = "update hubmerge" if error.unknown_key else None
        raise HubmergeError(f"{where}: {error}", hint=hint, file=where) from error


def _number(value: MetricValue | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _with_digests(steps: Sequence[StepReport]) -> tuple[StepReport, ...]:
    """Return the reports with their digests, each of which includes the one before."""
    chained: list[StepReport] = []
    for step in steps:
        chained.append(step.with_digest(chained[-1].digest if chained else None))
    return tuple(chained)


def _digest(content: Any) -> str:
    return text_digest(canonical_report_json(content))
