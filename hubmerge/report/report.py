"""Report of a run, the content of `hubmerge.json`: one `StepReport` for each step.

The classes are frozen dataclasses that are written as JSON and read back without loss. Keys are sorted and floats are
written with `repr`, so that equal reports give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hubmerge.errors import HubmergeError
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.support.names import REPORT_FILE
from hubmerge.support.records import Number, RecordError, read_record, record
from merge_recipes.canonical import canonical_document, canonical_report_json, text_digest

REPORT_VERSION = 1

MetricValue = Number | list[list[int]]
"""Value of a metric: a number, or the counts of a confusion matrix (row: true class, column: predicted class)."""

Scores = dict[str, dict[str, MetricValue]]
"""Metric values by task and metric."""

NOT_IN_MATRIX = frozenset({"confusion", "perplexity"})
"""Metrics that are not in the accuracy matrix: counts, and a number of which less is better."""

T = TypeVar("T")


@record
@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest value of a statistic over the weight matrices of a model."""

    mean: Number
    minimum: Number
    maximum: Number

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of `values`, None if there are none."""
        if not values:
            return None
        return cls(math.fsum(values) / len(values), float(min(values)), float(max(values)))


@record
@dataclass(frozen=True)
class TensorSummary:
    """Statistics over all tensors of one step."""

    weight_matrices: int = 0
    other_tensors: int = 0
    rank: Spread | None = None  # protected directions in a weight matrix; None if the method has no rank
    removed_share: Spread | None = None  # share of the task vector's squared norm that the projection removed
    error: Spread | None = None  # distance of a truncated projection from the exact one; None if it is exact


@record
@dataclass(frozen=True)
class MatrixStats:
    """Statistics of one weight matrix in one step."""

    name: str
    rank: int  # protected directions
    directions: int  # all directions
    removed_share: Number


@record
@dataclass(frozen=True)
class StepSimilarity:
    """Cosine between the task vectors of a step and of an earlier one, estimated from sketches."""

    step: int  # the earlier one
    name: str
    cosine: Number | None  # over all merged tensors; None if a task vector is zero
    layers: dict[str, Number | None] = field(default_factory=dict)


@record
@dataclass(frozen=True)
class ModelReport:
    """A model of the run: its reference in the recipe and its pinned commit."""

    reference: str  # as in the recipe: owner/name[@revision] or a path
    commit: str  # 40 hex digits, or sha256:... for a local folder


@record
@dataclass(frozen=True)
class TaskReport:
    """A task that the run scores: its dataset and the step that merged its checkpoint."""

    name: str
    kind: str
    step: int  # 1-based: the step that merged the checkpoint made for this task
    dataset: str
    subset: str | None = None
    split: str = "test"
    commit: str | None = None  # of the dataset
    metrics: tuple[str, ...] = ("accuracy",)
    examples: int | None = None  # how many examples were scored
    classes: int | None = None

    @property
    def main_metric(self) -> str:
        """Metric of the accuracy matrix, see `main_metric`."""
        return main_metric(self.metrics)


def main_metric(metrics: Sequence[str]) -> str:
    """Return the metric of the accuracy matrix: the first one of which more is better."""
    return next((metric for metric in metrics if metric not in NOT_IN_MATRIX), "accuracy")


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

    def with_digest(self, previous: str | None) -> StepReport:
        """Return the report with its digest, given the digest of the step before (None for step 1)."""
        content = {**self.to_dict(), "digest": None, "previous": previous}
        return dataclasses.replace(self, digest=_digest(content))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return dataclasses.asdict(self)

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
    """Report of a run after its last finished step, the content of `hubmerge.json`."""

    base_model: ModelReport
    merge_method: str
    recipe_digest: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    base_scores: Scores = field(default_factory=dict)
    own_scores: Scores = field(default_factory=dict)  # of each task's own checkpoint alone
    versions: dict[str, str] = field(default_factory=dict)  # tool -> version
    version: int = REPORT_VERSION

    def with_step(self, step: StepReport) -> RunReport:
        """Return the report with a step added or replaced, and the digests computed anew."""
        steps = {report.step: report for report in self.steps} | {step.step: step}
        return dataclasses.replace(self, steps=_with_digests([steps[number] for number in sorted(steps)]))

    def broken_digest(self) -> int | None:
        """Return the first step whose digest does not match its content, None if all match."""
        for report, expected in zip(self.steps, _with_digests(self.steps), strict=True):
            if report.digest != expected.digest:
                return report.step
        return None

    def until(self, step: int) -> RunReport:
        """Return the report as it was after `step`, without later steps and their tasks."""
        seen = {task.name for task in self.tasks if task.step <= step}
        return dataclasses.replace(
            self,
            tasks=tuple(task for task in self.tasks if task.step <= step),
            base_scores={name: scores for name, scores in self.base_scores.items() if name in seen},
            steps=tuple(report for report in self.steps if report.step <= step),
            own_scores={name: scores for name, scores in self.own_scores.items() if name in seen},
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
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the text of `hubmerge.json`: sorted keys, two spaces, a newline at the end."""
        return canonical_document(self.to_dict(), indent=2, ascii_only=False)

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
            data = json.loads(text)
        except ValueError as error:
            raise HubmergeError(f"{REPORT_FILE}: not JSON: {error}", file=REPORT_FILE) from error
        version = data.get("version") if isinstance(data, Mapping) else None
        if version != REPORT_VERSION:
            raise HubmergeError(
                f"{REPORT_FILE}: format version {version!r} is unknown, expected {REPORT_VERSION}",
                hint="update hubmerge, or publish to a new repo",
                file=REPORT_FILE,
            )
        return _read(_run_adapter(), text, REPORT_FILE)


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
