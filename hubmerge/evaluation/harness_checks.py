"""Checks of tasks of language models before any weight is read, without their datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.engines import check_engine
from hubmerge.evaluation.harness_definition import check_definition
from hubmerge.evaluation.harness_index import find_harness_task
from hubmerge.evaluation.harness_metrics import choose_metrics, metric_names
from hubmerge.evaluation.harness_sources import dataset_problems
from hubmerge.evaluation.task_keys import check_no_classes, check_prompts
from hubmerge.evaluation.text_scores import check_generation_metrics
from merge_recipes import Task
from merge_recipes.language_task import GENERATION_KIND, HARNESS_KIND

Found = Iterator[tuple[tuple[str | int, ...], EvaluationError]]


def check_language_task(task: Task) -> Found:
    """Yield the mistakes of a task of the kinds lm-eval and generation, each with the key that it is about."""
    if task.kind == HARNESS_KIND:
        yield from _check_harness(task)
    elif task.kind == GENERATION_KIND:
        yield from _failures(task, engine=check_engine, metrics=check_generation_metrics)


def _failures(task: Task, **checks: Callable[[Task], object]) -> Found:
    for key, check in checks.items():
        try:
            check(task)
        except EvaluationError as error:
            yield (key,), error


def _check_harness(task: Task) -> Found:
    yield from _failures(task, prompts=check_prompts, class_names=check_no_classes, engine=check_engine)
    try:
        found = find_harness_task(task)
    except EvaluationError as error:
        yield ("task",), error
        return
    wrong = list(check_definition(task, task.task, metric_names())) if isinstance(task.task, dict) else []
    yield from wrong
    if wrong:
        return
    yield from ((("dataset",), error) for error in dataset_problems(task, found))
    yield from _failures(task, metrics=lambda one: choose_metrics(one, found))
