from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import pytest
from sklearn import metrics as oracle

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.metrics import (
    CLASS_METRIC_NAMES,
    compute_metric,
    metric_named,
    rank_classes,
    shipped_metric,
)


@pytest.fixture(params=[(0, 60, 7), (1, 200, 3), (2, 5, 12)], ids=str)
def scored(request: pytest.FixtureRequest) -> Any:
    """Random scores (N, C) and true classes, some classes never occurring."""
    seed, examples, classes = request.param
    random = np.random.default_rng(seed)
    scores = random.normal(size=(examples, classes)).astype(np.float32)
    return scores, random.integers(0, max(2, classes - 1), examples)


def value_of(name: str, scored: Any, cache: Path) -> Any:
    return compute_metric(metric_named(name, cache), name, *scored)[name]


def test_shipped_metrics_agree_with_scikit_learn(scored: Any, tmp_path: Path) -> None:
    scores, true = scored
    predicted = scores.argmax(axis=1)
    classes = scores.shape[1]
    assert value_of("accuracy", scored, tmp_path) == oracle.accuracy_score(true, predicted)
    assert value_of("f1", scored, tmp_path) == pytest.approx(oracle.f1_score(true, predicted, average="macro"))
    expected = oracle.confusion_matrix(true, predicted, labels=range(classes)).tolist()
    assert value_of("confusion", scored, tmp_path) == expected
    expected = oracle.top_k_accuracy_score(true, scores, k=5, labels=range(classes)) if classes > 5 else 1.0
    assert value_of("top-5", scored, tmp_path) == pytest.approx(expected)


@pytest.mark.parametrize("average", ["weighted", "micro"])
def test_f1_averages(average: str, scored: Any, tmp_path: Path) -> None:
    scores, true = scored
    predicted = scores.argmax(axis=1)
    metric = shipped_metric("f1", tmp_path)
    assert metric is not None
    found = metric.compute(predictions=predicted, references=true, average=average)
    assert found["f1"] == pytest.approx(oracle.f1_score(true, predicted, average=average))


def test_f1_refuses_an_average_it_does_not_know(tmp_path: Path) -> None:
    metric = shipped_metric("f1", tmp_path)
    assert metric is not None
    with pytest.raises(ValueError, match="macro, weighted or micro"):
        metric.compute(predictions=[0], references=[0], average="samples")


@pytest.mark.parametrize("name", CLASS_METRIC_NAMES)
def test_shipped_metrics_are_evaluate_metrics_and_leave_no_files(name: str, tmp_path: Path) -> None:
    metric = shipped_metric(name, tmp_path)
    assert isinstance(metric, evaluate.Metric)
    compute_metric(metric, name, np.eye(3, dtype=np.float32), np.arange(3))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_metric_can_be_used_twice(tmp_path: Path) -> None:
    metric = shipped_metric("accuracy", tmp_path)
    scores = np.eye(4, dtype=np.float32)
    assert compute_metric(metric, "accuracy", scores, np.arange(4)) == {"accuracy": 1.0}
    assert compute_metric(metric, "accuracy", scores, np.zeros(4, dtype=np.int64)) == {"accuracy": 0.25}


def test_equal_scores_go_to_the_lower_class() -> None:
    assert rank_classes(np.zeros((1, 7)), best=3).tolist() == [[0, 1, 2]]


class TwoNumbers(evaluate.Metric):
    def _info(self) -> Any:
        value = datasets.Value("int64")
        features = datasets.Features({"predictions": value, "references": value})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions: Any, references: Any) -> Any:
        return {"low": 0.25, "high": 0.75, "words": "no number", "hole": float("nan")}


class Broken(TwoNumbers):
    def _compute(self, predictions: Any, references: Any) -> None:
        raise ValueError("needs average=")


def from_outside(kind: type[Any]) -> Any:
    return lambda _, cache: kind(keep_in_memory=True, cache_dir=str(cache))


def test_a_metric_from_outside_may_give_several_numbers(tmp_path: Path) -> None:
    metric = metric_named("mine", tmp_path, from_outside(TwoNumbers))
    found = compute_metric(metric, "mine", np.eye(2, dtype=np.float32), np.arange(2))
    assert found == {"mine.low": 0.25, "mine.high": 0.75}


def test_a_metric_that_raises_is_named(tmp_path: Path) -> None:
    metric = metric_named("precision", tmp_path, from_outside(Broken))
    with pytest.raises(EvaluationError, match=r"'precision' could not be computed: needs average="):
        compute_metric(metric, "precision", np.eye(2, dtype=np.float32), np.arange(2))


def test_a_metric_that_does_not_ship_needs_a_loader(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="'rouge' is not part of hubmerge"):
        metric_named("rouge", tmp_path)
