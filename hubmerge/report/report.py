"""What a run tells about itself: one `StepReport` a step, all of them together in `hubmerge.json`.

Pure data: frozen dataclasses that go to JSON and back without loss. Keys are sorted and floats are written with
`repr`, so equal reports give equal bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hubmerge.errors import HubmergeError
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.support.names import REPORT_FILE
from merge_recipes.canonical import canonical_document, canonical_report_json, text_digest

REPORT_VERSION = 1

# A metric gives one number, or, for the confusion matrix, counts: row = true class, column = predicted class.
MetricValue = float | list[list[int]]
Scores = dict[str, dict[str, MetricValue]]  # task -> metric -> value

# Counts, and a figure of which less is better: neither can stand in the accuracy matrix.
NOT_IN_MATRIX = frozenset({"confusion", "perplexity"})

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest of a figure over the weight matrices of a model."""

    mean: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Sum up `values`; None when there are none."""
        if not values:
            return None
        return cls(math.fsum(values) / len(values), float(min(values)), float(max(values)))


@dataclass(frozen=True)
class TensorSummary:
    """The figures of all tensors of one step, summed up."""

    weight_matrices: int = 0
    other_tensors: int = 0
    rank: Spread | None = None  # protected directions in a weight matrix; None where the method has no rank
    removed_share: Spread | None = None  # share of the task vector's squared norm that the projection removed
    error: Spread | None = None  # how far a truncated form is from the exact one; None where it is exact


@dataclass(frozen=True)
class MatrixFigures:
    """One weight matrix in one step."""

    name: str
    rank: int  # protected directions
    directions: int  # out of how many
    removed_share: float


@dataclass(frozen=True)
class StepSimilarity:
    """Cosine between the task vectors of a step and of an earlier one, estimated from sketches."""

    step: int  # the earlier one
    name: str
    cosine: float | None  # over all merged tensors; None where one of them is zero
    layers: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelReport:
    """A model of the run: what the recipe says and the commit it stood for."""

    reference: str  # as in the recipe: owner/name[@revision] or a path
    commit: str  # 40 hex digits, or sha256:... for a local folder


@dataclass(frozen=True)
class TaskReport:
    """A task that the run scores: where its examples come from and at which step it is first seen."""

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
        """The metric that stands in the accuracy matrix: see `main_metric`."""
        return main_metric(self.metrics)


def main_metric(metrics: Sequence[str]) -> str:
    """The one of a task's metrics that stands in the accuracy matrix: the first of which more is better."""
    return next((metric for metric in metrics if metric not in NOT_IN_MATRIX), "accuracy")


@dataclass(frozen=True)
class StepReport:
    """One step: which checkpoint was merged, what it weighed, and how the merged model scores.

    Norms are Frobenius norms over all merged tensors together.
    """

    step: int  # 1-based
    name: str
    reference: str
    commit: str
    scale: float  # lambda: merged model = base model + accumulated delta / scale
    accumulated_norm: float
    task_vector_norm: float
    tensors: TensorSummary = field(default_factory=TensorSummary)
    similarity: float | None = None  # cosine between the task vector and the accumulated delta before this step
    scores: Scores = field(default_factory=dict)
    rounding: float | None = None  # length of the rounding error of the written weights over that of the merged delta
    seconds: float | None = None
    chain_digest: str | None = None  # of everything that led to this step
    files: dict[str, str] = field(default_factory=dict)  # weight file -> sha256
    state_digest: str | None = None  # sha256 of the manifest of the state after this step, where states are kept
    digest: str | None = None  # of this report and of the digest of the step before: a chain
    drift: float | None = None  # distance of the merged model from the base model: accumulated_norm / scale
    removed_share: float | None = None  # of the whole task vector's squared norm
    matrices: tuple[MatrixFigures, ...] = ()
    similarities: tuple[StepSimilarity, ...] = ()  # to the task vectors of all earlier steps
    warnings: tuple[str, ...] = ()

    def with_digest(self, previous: str | None) -> StepReport:
        """The report with its digest, given the digest of the step before (None for step 1)."""
        content = {**self.to_dict(), "digest": None, "previous": previous}
        return dataclasses.replace(self, digest=_digest(content))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepReport:
        """Undo `to_dict`."""
        return _build(cls, data, "step report")


@dataclass(frozen=True)
class RunReport:
    """All that is known of a run after its last finished step: the content of `hubmerge.json`."""

    base_model: ModelReport
    merge_method: str
    recipe_digest: str
    parameters: dict[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskReport, ...] = ()
    steps: tuple[StepReport, ...] = ()
    base_scores: Scores = field(default_factory=dict)
    own_scores: Scores = field(default_factory=dict)  # of each task's own checkpoint, not merged with anything
    versions: dict[str, str] = field(default_factory=dict)  # tool -> version
    version: int = REPORT_VERSION

    def with_step(self, step: StepReport) -> RunReport:
        """The report with one more step, or with that step's report replaced."""
        steps = {report.step: report for report in self.steps} | {step.step: step}
        return dataclasses.replace(self, steps=_with_digests([steps[number] for number in sorted(steps)]))

    def broken_digest(self) -> int | None:
        """Return the first step whose digest does not match its content, None if all match."""
        for report, expected in zip(self.steps, _with_digests(self.steps), strict=True):
            if report.digest != expected.digest:
                return report.step
        return None

    def until(self, step: int) -> RunReport:
        """The report as it stood after `step`: later steps and the tasks that come with them left out."""
        seen = {task.name for task in self.tasks if task.step <= step}
        return dataclasses.replace(
            self,
            tasks=tuple(task for task in self.tasks if task.step <= step),
            base_scores={name: scores for name, scores in self.base_scores.items() if name in seen},
            steps=tuple(report for report in self.steps if report.step <= step),
            own_scores={name: scores for name, scores in self.own_scores.items() if name in seen},
        )

    def accuracy_matrix(self) -> AccuracyMatrix:
        """R[t][j], the main metric of every task j after every step t."""
        matrix = AccuracyMatrix(tuple(task.name for task in self.tasks), tuple(task.step for task in self.tasks))
        for report in self.steps:
            if row := self.main_scores(report.scores):
                matrix = matrix.record(report.step, row)
        return matrix

    def main_scores(self, scores: Scores) -> dict[str, float]:
        """Each task's main metric out of `scores`, for the tasks that have it."""
        found = {}
        for task in self.tasks:
            value = scores.get(task.name, {}).get(task.main_metric)
            if isinstance(value, (int, float)):
                found[task.name] = float(value)
        return found

    def other_metrics(self) -> list[tuple[str, str, list[float | None]]]:
        """(task, metric, values of base model, own checkpoint and merged model) of what is not in the matrix."""
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
        """Them as a plain table for a terminal; empty if there are none."""
        rows = [["task", "metric", "base model", "own checkpoint", "this model"]]
        for task, metric, values in self.other_metrics():
            rows.append([task, metric, *("-" if value is None else f"{value:.4f}" for value in values)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(lines) if len(rows) > 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunReport:
        """Undo `to_dict`.

        Raises:
            HubmergeError: the report was written in a newer format, or is not a report.
        """
        version = data.get("version") if isinstance(data, Mapping) else None
        if version != REPORT_VERSION:
            raise HubmergeError(
                f"{REPORT_FILE}: format version {version!r} cannot be read, this tool reads {REPORT_VERSION}",
                hint="update hubmerge, or publish to a new repo",
            )
        return _build(cls, data, REPORT_FILE)

    def to_json(self) -> str:
        """The text of `hubmerge.json`: sorted keys, two spaces, a newline at the end."""
        return canonical_document(self.to_dict(), indent=2, ascii_only=False)

    @classmethod
    def from_json(cls, text: str) -> RunReport:
        """Undo `to_json`.

        Raises:
            HubmergeError: the text is not a report of a format this tool reads.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise HubmergeError(f"{REPORT_FILE}: not JSON: {error}") from error
        return cls.from_dict(data)


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


def _build(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from plain JSON values, following its annotations.

    Unknown keys are refused: a report that lost a figure silently would be worse than none.
    """
    if not isinstance(data, Mapping):
        raise HubmergeError(f"{where}: expected a mapping, found {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise HubmergeError(f"{where}: unknown key {unknown[0]!r}", hint="update hubmerge")
    values = {key: _restore(hints[key], value, f"{where}: {key}") for key, value in data.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise HubmergeError(f"{where}: {error}") from error


def _restore(hint: Any, value: Any, where: str) -> Any:
    """Turn `value` back into what `hint` says, for the few shapes that reports are made of."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        nested = [argument for argument in arguments if dataclasses.is_dataclass(argument)]
        return _restore(nested[0], value, where) if nested else value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if origin is tuple:
        return tuple(_restore(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    return value
