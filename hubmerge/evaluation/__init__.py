"""Scoring the merged model on the tasks seen so far.

One file per kind of task. A kind opens one scorer a run, prepares each task once, and each prepared task then scores
whatever the scorer holds:

    scorer = kind.open_scorer(base_folder, base, identity=base_commit)
    prepared = kind.prepare(task, rows, scorer, cache_folder, dataset_commit=commit)
    scorer.load(merged)
    prepared.score(scorer)  # {"accuracy": 0.75}

The names stand here without what they stand for: importing the libraries behind them takes seconds, and a recipe is
checked against names alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubmerge.errors import EvaluationError

if TYPE_CHECKING:
    from hubmerge.evaluation.kinds import TaskKind

TASK_KIND_NAMES = ("zero-shot-image-classification", "text-classification", "causal-lm")
METRIC_NAMES = ("accuracy", "f1", "top-5", "confusion", "perplexity")

__all__ = ["METRIC_NAMES", "TASK_KIND_NAMES", "task_kind_named"]


def task_kind_named(name: str) -> TaskKind:
    """The kind of task that a recipe calls `name`.

    Raises:
        EvaluationError: there is no such kind.
    """
    if name == "zero-shot-image-classification":
        from hubmerge.evaluation.zero_shot import ZeroShotImageClassification

        return ZeroShotImageClassification()
    if name == "text-classification":
        from hubmerge.evaluation.text_classification import TextClassification

        return TextClassification()
    if name == "causal-lm":
        from hubmerge.evaluation.causal_lm import CausalLM

        return CausalLM()
    raise EvaluationError(f"no kind of task {name!r}", hint=f"the kinds are: {', '.join(TASK_KIND_NAMES)}")
