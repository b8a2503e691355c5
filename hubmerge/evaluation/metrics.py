"""Metrics as `evaluate.Metric` objects: five of this package, which need no network, and a way to load others.

`shipped_metric` keeps the data of a metric in memory, without lock files or a shared cache.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np

from hubmerge.errors import EvaluationError
from hubmerge.report.report import MetricValue

MetricLoader = Callable[[str, Path], evaluate.Metric]
"""Function that loads a metric, given its name and the cache folder."""


class _ShippedMetric(evaluate.Metric):
    """Base class of the metrics below, with one predicted and one true class for each example."""

    metric_name: str
    takes_ranking = False
    about: str

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        prediction = datasets.List(label) if self.takes_ranking else label
        return evaluate.MetricInfo(
            description=self.about,
            citation="",
            inputs_description=self.about,
            features=datasets.Features({"predictions": prediction, "references": label}),
        )


class Accuracy(_ShippedMetric):
    """Share of examples whose predicted class is the true one."""

    metric_name = "accuracy"
    about = "Share of examples whose predicted class is the true one."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        hits = np.asarray(predictions) == np.asarray(references)
        return {"accuracy": float(hits.mean())}


class F1(_ShippedMetric):
    """Harmonic mean of precision and recall over the classes in predictions or references.

    `average` is "macro" (mean over classes, the default), "weighted" (mean weighted by the number of references of a
    class) or "micro". A class without a hit counts as 0.
    """

    metric_name = "f1"
    about = "Harmonic mean of precision and recall; by default the plain mean over classes (macro)."

    def _compute(self, predictions: Any, references: Any, average: str = "macro") -> dict[str, float]:
        counts = _confusion(np.asarray(predictions), np.asarray(references))
        hits, predicted, true = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
        if average == "micro":
            return {"f1": float(hits.sum() / counts.sum())}
        occurring = (predicted + true) > 0
        per_class = 2 * hits[occurring] / (predicted + true)[occurring]
        if average == "macro":
            return {"f1": float(per_class.mean())}
        if average == "weighted":
            return {"f1": float(np.average(per_class, weights=true[occurring]))}
        raise ValueError(f"average must be macro, weighted or micro, not {average!r}")


class Top5(_ShippedMetric):
    """Share of examples whose true class is among the five classes with the highest scores.

    `predictions` are the classes of each example, best first: (N, 5 or more), or all classes if there are fewer.
    """

    metric_name = "top-5"
    takes_ranking = True
    about = "Share of examples whose true class is among the five best scored ones. Predictions: classes, best first."

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        best, true = np.asarray(predictions)[:, :5], np.asarray(references)
        return {"top-5": float((best == true[:, None]).any(axis=1).mean())}


class Confusion(_ShippedMetric):
    """Counts of examples: row = true class, column = predicted class. `classes` is the smallest size."""

    metric_name = "confusion"
    about = "Counts of examples: row = true class, column = predicted class."

    def _compute(self, predictions: Any, references: Any, classes: int = 0) -> dict[str, list[list[int]]]:
        counts: list[list[int]] = _confusion(np.asarray(predictions), np.asarray(references), classes).tolist()
        return {"confusion": counts}


class Perplexity(_ShippedMetric):
    """Exponential of the mean negative log probability of the true tokens. Lower is better, 1 is perfect."""

    metric_name = "perplexity"
    about = "exp of the mean negative natural logarithm of the probabilities given to the true tokens; lower is better."

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation="",
            inputs_description=self.about,
            features=datasets.Features({"log_probabilities": datasets.Value("float64")}),
        )

    def _compute(self, log_probabilities: Any) -> dict[str, float]:
        return {"perplexity": float(np.exp(-np.mean(np.asarray(log_probabilities, dtype=np.float64))))}


CLASS_METRICS: tuple[type[_ShippedMetric], ...] = (Accuracy, F1, Top5, Confusion)
SHIPPED_METRICS: tuple[type[_ShippedMetric], ...] = (*CLASS_METRICS, Perplexity)
CLASS_METRIC_NAMES: tuple[str, ...] = tuple(metric.metric_name for metric in CLASS_METRICS)
SHIPPED_METRIC_NAMES: tuple[str, ...] = tuple(metric.metric_name for metric in SHIPPED_METRICS)


def _confusion(predictions: np.ndarray, references: np.ndarray, classes: int = 0) -> np.ndarray:
    """Return counts, int64 (C, C): row = reference, column = prediction; C is at least `classes`."""
    size = max(classes, int(max(predictions.max(), references.max())) + 1)
    return np.bincount(references * size + predictions, minlength=size * size).reshape(size, size)


def rank_classes(scores: np.ndarray, best: int = 5) -> np.ndarray:
    """Return the `best` classes of each example, best first. Of equal scores, the lower class number is first.

    Args:
        scores: float (N, C).
        best: the number of classes to return.

    Returns:
        int64 (N, min(best, C)).
    """
    return np.argsort(-scores, axis=1, kind="stable")[:, :best]


def shipped_metric(name: str, cache_folder: Path) -> evaluate.Metric | None:
    """Return a metric of this package, None if there is none of this name.

    Args:
        name: the name of the metric.
        cache_folder: the folder for the library's files, which would otherwise be in the home folder.
    """
    for metric in SHIPPED_METRICS:
        if metric.metric_name == name:
            return metric(
                keep_in_memory=True, cache_dir=str(cache_folder / "metrics"), experiment_id=uuid.uuid4().hex, seed=0
            )
    return None


def metric_named(name: str, cache_folder: Path, load: MetricLoader | None = None) -> evaluate.Metric:
    """Return a metric of this package, or the one that `load` returns.

    Raises:
        EvaluationError: it is not a metric of this package, and `load` is None.
    """
    metric = shipped_metric(name, cache_folder)
    if metric is not None:
        return metric
    if load is None:
        raise EvaluationError(
            f"metric {name!r} is not part of hubmerge, and other metrics cannot be loaded here",
            hint=f"use one of {', '.join(SHIPPED_METRIC_NAMES)}",
        )
    return load(name, cache_folder)


def compute_metric(
    metric: evaluate.Metric, name: str, scores: np.ndarray, references: np.ndarray
) -> dict[str, MetricValue]:
    """Return {name: value}, or {name.key: value} if the metric has several numbers.

    Args:
        metric: the metric.
        name: its name in the recipe.
        scores: float (N, C), one score for each class.
        references: int64 (N,), the true classes.

    Raises:
        EvaluationError: the metric cannot be computed, or returns no finite number.
    """
    if isinstance(metric, Perplexity):
        raise EvaluationError(
            f"metric {name!r} does not apply to classes", hint="use it in a task of the kind causal-lm"
        )
    options: dict[str, Any] = {"classes": scores.shape[1]} if isinstance(metric, Confusion) else {}
    inputs = rank_classes(scores) if getattr(metric, "takes_ranking", False) else scores.argmax(axis=1)
    try:
        values = metric.compute(predictions=inputs, references=references, **options)
    except Exception as error:  # external metrics may raise any exception
        raise EvaluationError(
            f"metric {name!r} could not be computed: {error}",
            hint="choose a metric of integer predictions and references that needs no options",
        ) from error
    if isinstance(metric, Confusion):
        return dict(values)
    scalars = {key: value for key, value in (values or {}).items() if isinstance(value, (int, float, np.number))}
    numbers = {key: float(value) for key, value in scalars.items() if math.isfinite(value)}
    if not numbers:
        raise EvaluationError(f"metric {name!r} returned no finite number: {values!r}")
    if len(numbers) == 1:
        return {name: next(iter(numbers.values()))}
    return {key if key == name else f"{name}.{key}": value for key, value in numbers.items()}


def finite_scores(scores: Mapping[str, float], label: str) -> dict[str, MetricValue]:
    """Return scores as floats.

    Raises:
        EvaluationError: one is not a finite number.
    """
    for name, value in scores.items():
        if not math.isfinite(value):
            raise EvaluationError(
                f"{label}: metric {name!r} is {value}",
                hint="check that the scores of the dataset are not all equal, and the norms of the steps in the report",
            )
    return {name: float(value) for name, value in scores.items()}


def check_class_metric(metric: evaluate.Metric, name: str, classes: int) -> None:
    """Check that a metric can be computed for so many classes, with a right and a wrong prediction for each class.

    Raises:
        EvaluationError: the metric cannot be computed.
    """
    right = np.eye(max(classes, 2), dtype=np.float32)
    references = np.tile(np.arange(len(right)), 2)
    compute_metric(metric, name, np.concatenate([right, np.roll(right, 1, axis=1)]), references)
