"""Models and tasks of a run, as the report holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubmerge.report.licenses import License
from hubmerge.support.records import record

NOT_IN_MATRIX = frozenset({"confusion", "perplexity"})
"""Metrics that are not in the accuracy matrix: counts, and a number of which less is better."""


@record
@dataclass(frozen=True)
class ModelReport:
    """A model of the run: its reference in the recipe and its pinned commit."""

    reference: str  # as in the recipe: owner/name[@revision] or a path
    commit: str  # 40 hex digits, or sha256:... for a local folder
    licenses: tuple[License, ...] = ()  # of the model; empty in reports of version 1


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
