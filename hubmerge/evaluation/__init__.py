"""Scoring the merged model on the tasks seen so far.

One file per kind of task; `TASK_KINDS` names them all. A kind opens one scorer a run, prepares each task once, and
each prepared task then scores whatever the scorer holds:

    scorer = kind.open_scorer(base_folder, base, identity=base_commit)
    prepared = kind.prepare(task, rows, scorer, cache_folder, dataset_commit=commit)
    scorer.load(merged)
    prepared.score(scorer)  # {"accuracy": 0.75}
"""

from __future__ import annotations

from hubmerge.accuracy import AccuracyMatrix
from hubmerge.errors import EvaluationError
from hubmerge.evaluation.kinds import PreparedTask, Scorer, TaskKind, Weights
from hubmerge.evaluation.metrics import SHIPPED_METRIC_NAMES as METRICS
from hubmerge.evaluation.zero_shot import ZeroShotImageClassification

TASK_KINDS: tuple[TaskKind, ...] = (ZeroShotImageClassification(),)

__all__ = [
    "METRICS",
    "TASK_KINDS",
    "AccuracyMatrix",
    "PreparedTask",
    "Scorer",
    "TaskKind",
    "Weights",
    "task_kind_named",
]


def task_kind_named(name: str) -> TaskKind:
    """The kind of task that a recipe calls `name`.

    Raises:
        EvaluationError: there is no such kind.
    """
    for kind in TASK_KINDS:
        if kind.name == name:
            return kind
    raise EvaluationError(
        f"no kind of task {name!r}", hint=f"the kinds are: {', '.join(kind.name for kind in TASK_KINDS)}"
    )
