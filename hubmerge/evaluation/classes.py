"""Parts that all classification tasks share: reading the classes, checking outputs, computing metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import datasets
import evaluate
import numpy as np
import torch

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.labels import read_labels
from hubmerge.evaluation.metrics import compute_metric
from hubmerge.evaluation.task_keys import task_place
from hubmerge.report.report import MetricValue
from merge_recipes import DatasetReference, Task
from merge_recipes.references import is_local_path

ONE_CLASS = "set `class_names` of the task to all classes, in the order of the label values, or choose another split"
"""The hint for a split whose labels are all of one class."""


@contextmanager
def dataset_errors(source: DatasetReference, commit: str | None) -> Iterator[None]:
    """Add repo and commit of a dataset, or its local path, to an `EvaluationError` that has no place yet."""
    try:
        yield
    except EvaluationError as error:
        path = source.path
        place = {"file": path} if is_local_path(path) else {"repo": path, "commit": commit}
        if error.context.repo is None and error.context.file is None:
            error.context = replace(error.context, **place)
        raise


def check_rows(rows: datasets.Dataset, task: Task) -> None:
    """Refuse a dataset without rows.

    Raises:
        EvaluationError: there are no rows.
    """
    if len(rows) == 0:
        raise EvaluationError(
            f"{task_place(task)}: no examples", hint="set `split` of the dataset to a split with examples"
        )


def read_classes(rows: datasets.Dataset, task: Task) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of the classes, and the class of every row, int64 (N,).

    The names come from all rows, so that `max_examples` changes which examples are scored but never the classes.

    Raises:
        EvaluationError: the labels do not fit the task, or there are fewer than two classes.
    """
    names, labels = read_labels(rows, task.dataset.label, task.class_names, task_place(task))
    if len(names) < 2:
        raise EvaluationError(f"{task_place(task)}: {len(names)} class, expected at least 2", hint=ONE_CLASS)
    return names, labels


def check_finite(values: torch.Tensor, label: str) -> None:
    """Refuse outputs of a model that are not finite.

    Raises:
        EvaluationError: a value is infinite or NaN.
    """
    if not bool(torch.isfinite(values).all()):
        raise EvaluationError(
            f"{label}: the model's outputs are not finite",
            hint="its weights are too large or contain NaN; compare the scale and norms of the steps in the report",
        )


def score_classes(
    metrics: Mapping[str, evaluate.Metric], logits: np.ndarray, labels: np.ndarray
) -> dict[str, MetricValue]:
    """Return the values of all metrics.

    Args:
        metrics: the metrics by name.
        logits: float (N, C), one value for each example and class.
        labels: int64 (N,), the true classes.

    Raises:
        EvaluationError: a metric cannot be computed.
    """
    values: dict[str, MetricValue] = {}
    for name, metric in metrics.items():
        values |= compute_metric(metric, name, logits, labels)
    return values
