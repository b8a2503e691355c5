"""Evaluation of the merged model on the tasks seen so far. Importing it does not import torch.

There is one module for each kind of task. A kind opens one scorer for a run and prepares each task once. A prepared
task then scores the model in the scorer:

    scorer = kind.open_scorer(base_folder, base, identity=base_commit)
    prepared = kind.prepare(task, rows, scorer, cache_folder, dataset_commit=commit)
    scorer.load(merged)
    prepared.score(scorer)  # {"accuracy": 0.75}
"""

from __future__ import annotations

from hubmerge.evaluation.registry import TASK_KIND_NAMES, task_kind_named, task_kind_names, task_kind_plugin
from hubmerge.evaluation.task_keys import KIND_METRICS

_OF_KINDS = tuple(metric for metrics in KIND_METRICS.values() for metric in metrics)
METRIC_NAMES = ("accuracy", "f1", "top-5", "confusion", "perplexity", *_OF_KINDS)
"""The metrics of this package."""

__all__ = ["METRIC_NAMES", "TASK_KIND_NAMES", "task_kind_named", "task_kind_names", "task_kind_plugin"]
