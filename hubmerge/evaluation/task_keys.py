"""Names of tasks in messages, and keys that some kinds of task do not use. Importing it does not import torch."""

from __future__ import annotations

from hubmerge.errors import EvaluationError
from hubmerge.support.text import counted
from merge_recipes import DatasetReference, Task
from merge_recipes.language_task import LANGUAGE_KINDS

KIND_METRICS = {
    "sentence-similarity": ("spearman", "pearson"),
    "text-retrieval": ("ndcg@10", "mrr@10", "map@100", "recall@10", "precision@10", "accuracy@1"),
}
"""Metrics of kinds that compute them with evaluators of their own; the first one is the default."""

KINDS_WITHOUT_CLASSES = frozenset({"causal-lm", *LANGUAGE_KINDS, *KIND_METRICS})
"""Kinds whose answers are not classes. They check their metrics themselves."""

TEXT_METRICS = ("accuracy", "perplexity")
"""Metrics of a task that predicts the tokens of texts."""


def task_place(task: Task, source: DatasetReference | None = None) -> str:
    """Return the name of a task and its dataset for messages.

    Args:
        task: the task.
        source: the dataset if it is not that of `path`, such as the one of `qrels`.
    """
    dataset = task.dataset if source is None else source
    more = f" and {counted(len(dataset.more), 'more split')}" if dataset.more else ""
    return f"task {task.name}, {dataset.path}, split {dataset.split}{more}"


def check_prompts(task: Task) -> None:
    """Refuse prompts, which a task of texts does not use.

    Raises:
        EvaluationError: the task has prompts.
    """
    if task.prompts != Task.model_fields["prompts"].default:
        raise EvaluationError(f"{task_place(task)}: {task.kind} has no prompts", hint="remove the key `prompts`")


def check_text_metrics(task: Task) -> None:
    """Refuse metrics of classes, which a task that predicts tokens does not have.

    Raises:
        EvaluationError: the task has another metric.
    """
    unknown = next((name for name in task.metrics if name not in TEXT_METRICS), None)
    if unknown is not None:
        raise EvaluationError(
            f"{task_place(task)}: {task.kind} has no metric {unknown!r}",
            hint=f"set `metrics` to {' or '.join(TEXT_METRICS)}",
        )


def check_kind_metrics(task: Task) -> None:
    """Refuse metrics that a kind does not compute.

    Raises:
        EvaluationError: the task has another metric.
    """
    known = KIND_METRICS[task.kind]
    unknown = next((name for name in task.metrics if name not in known), None)
    if unknown is not None:
        raise EvaluationError(
            f"{task_place(task)}: {task.kind} has no metric {unknown!r}",
            hint=f"set `metrics` to some of {', '.join(known)}",
        )


def check_embedder_keys(task: Task) -> None:
    """Refuse keys and metrics that a task of an embedder does not have.

    Raises:
        EvaluationError: the task has prompts, names of classes or another metric.
    """
    for check in (check_prompts, check_no_classes, check_kind_metrics):
        check(task)


def check_no_classes(task: Task) -> None:
    """Refuse names of classes, which a task that predicts tokens does not use.

    Raises:
        EvaluationError: the task has names of classes.
    """
    if task.class_names is not None:
        raise EvaluationError(f"{task_place(task)}: {task.kind} has no classes", hint="remove the key `class_names`")
