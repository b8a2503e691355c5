"""Models and tasks of a run, as the report holds them."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hubmerge.report.licenses import License, omit_unused_licenses
from hubmerge.support.records import record

NOT_IN_MATRIX = frozenset({"confusion", "perplexity"})
"""Metrics that are not in the accuracy matrix: counts, and a number of which less is better."""


@record
@dataclass(frozen=True)
class ModelReport:
    """A model of the run: its reference in the recipe and its pinned commit."""

    reference: str  # as in the recipe: owner/name[@revision] or a path
    commit: str  # 40 hex digits, or sha256:... for a local folder
    licenses: tuple[License, ...] = ()  # of the model, then of its adapter; empty in reports of version 1


@record
@dataclass(frozen=True)
class SampleReport:
    """Examples of a split that a task was scored on."""

    rule: Literal["all", "balanced", "first"]
    max_examples: int | None = None
    seed: int | None = None  # of a balanced sample

    @property
    def text(self) -> str:
        """The sample in words."""
        if self.rule == "all":
            return "all examples"
        count = "example" if self.max_examples == 1 else "examples"
        if self.rule == "first":
            return f"the first {self.max_examples} {count}"
        return f"a balanced sample of {self.max_examples} {count} (seed {self.seed})"

    @property
    def keys(self) -> str:
        """Keys of a dataset in a recipe that give this sample."""
        if self.rule == "all":
            return "max_examples: null"
        how = "sample: first" if self.rule == "first" else f"seed: {self.seed}"
        return f"max_examples: {self.max_examples}, {how}"


@record
@dataclass(frozen=True)
class MergedModel:
    """A model that was merged or lends its tokenizer: its name, its reference in the recipe and its pinned commit."""

    name: str
    reference: str
    commit: str
    licenses: tuple[License, ...] = ()  # of the model, then of its adapter


TOKENIZER = "tokenizer of "
"""Beginning of the name, among the inputs, of a model that only lends its tokenizer."""


def tokenizer_input(lent: MergedModel | None) -> tuple[MergedModel, ...]:
    """Return the model that only lends its tokenizer under its name among the inputs, nothing if there is none."""
    return () if lent is None else (replace(lent, name=f"{TOKENIZER}{lent.name}"),)


@record
@dataclass(frozen=True)
class TokenizerReport:
    """The vocabulary of a merged model whose recipe names one."""

    source: str  # union, base or a model, as in the recipe
    tokens: int
    rows: int  # of the embeddings
    vocabulary: str  # sha256 of all tokens in their order
    sources: dict[str, str]  # model -> sha256 of the files of its tokenizer
    others: int = 0  # tokens that not all models have, or that the recipe names


@record
@dataclass(frozen=True)
class LayerRange:
    """Layers of a merged model: its name in the recipe, the first and the last layer."""

    name: str
    first: int
    last: int


@record
@dataclass(frozen=True)
class StackedLayers:
    """Layers of a model with stacked layers, and the layers that they were merged from."""

    first: int
    last: int
    sources: tuple[LayerRange, ...]


@record
@dataclass(frozen=True)
class CombinedPart:
    """A published stream whose state was added to those of others."""

    place: str  # owner/name, or the path of a folder as it was named
    commit: str | None  # of the repo; None for a folder
    steps: int  # number of its steps, which are in the combined stream too
    state_digest: str  # of its state after the last of them
    report: str  # seal of its report


@record
@dataclass(frozen=True)
class DataReport:
    """A dataset repo or folder that a task reads."""

    path: str
    commit: str | None = None
    licenses: tuple[License, ...] = ()
    subset: str | None = None
    split: str | None = None  # that a group of tasks scores, beside that of the dataset


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
    sampling: SampleReport | None = None  # None in reports of version 0.1.0: the first examples of the split
    licenses: tuple[License, ...] = ()  # of the dataset; empty in tasks that were scored before they were read
    head: str | None = None  # entry whose own head scores the task; None for the base model's head, or none
    more_data: tuple[DataReport, ...] = ()  # read beside the dataset: judgements of a BEIR data set, splits of a group

    @property
    def data(self) -> tuple[DataReport, ...]:
        """All repos and folders that the task reads: its dataset, then the others."""
        return (DataReport(self.dataset, self.commit, self.licenses), *self.more_data)

    @property
    def main_metric(self) -> str:
        """Metric of the accuracy matrix, see `main_metric`."""
        return main_metric(self.metrics)


def main_metric(metrics: Sequence[str]) -> str:
    """Return the metric of the accuracy matrix: the first one of which more is better."""
    return next((metric for metric in metrics if metric not in NOT_IN_MATRIX), "accuracy")


def omit_unused_tokenizer(report: MutableMapping[str, Any]) -> None:
    """Remove the model that lends its tokenizer from a plain report of a run or a stage if there is none."""
    if report["tokenizer"] is None:
        del report["tokenizer"]
    else:
        omit_unused_licenses(report["tokenizer"])


def omit_unused_data(task: MutableMapping[str, Any]) -> None:
    """Remove the data beside the dataset from a plain report of a task or a choice if there is none."""
    if not task["more_data"]:
        del task["more_data"]
    for data in task.get("more_data", ()):
        omit_unused_licenses(data)
        for key in ("subset", "split"):
            if data[key] is None:
                del data[key]


def omit_unused_inputs(report: MutableMapping[str, Any]) -> None:
    """Remove what a plain report of version 0.1.0 does not have, if it says nothing."""
    omit_unused_licenses(report["base_model"])
    omit_unused_tokenizer(report)
    if report["state_dtype"] == "float64":
        del report["state_dtype"]
    for task in report["tasks"]:
        omit_unused_licenses(task)
        for key in ("sampling", "head"):
            if task[key] is None:
                del task[key]
        omit_unused_data(task)
