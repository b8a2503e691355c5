"""Checks of all tasks before any weight is read: every dataset is opened, and every mistake is collected."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.errors import CheckpointError, ErrorCollector, EvaluationError, HubError
from hubmerge.evaluation import METRIC_NAMES, TASK_KIND_NAMES
from hubmerge.evaluation.base_files import BaseFiles
from hubmerge.evaluation.external_metrics import check_external_metrics
from hubmerge.evaluation.own_head import HeadFacts
from hubmerge.evaluation.task_keys import KINDS_WITHOUT_CLASSES
from hubmerge.hub import fetch
from hubmerge.plan.checked_task import CheckedTask, describe_task
from hubmerge.plan.open_data import OpenedData, open_data
from hubmerge.plan.own_heads import OwnHeads
from hubmerge.plan.samples import as_recorded, check_sample, data_error
from hubmerge.report.report import TaskReport
from hubmerge.stream.located import located
from hubmerge.stream.sources import Source, files_of
from hubmerge.stream.stream import Stream
from hubmerge.stream.task_datasets import TASKS, Commits
from hubmerge.support import interrupts
from merge_recipes import LoadedRecipe, Task
from merge_recipes.language_task import HARNESS_KIND, LANGUAGE_KINDS

if TYPE_CHECKING:
    from hubmerge.evaluation.preview import DatasetPreview

CONFIG = "config.json"
Key = tuple[str | int, ...]
"""Place in a task of a recipe: keys, and numbers of items."""


def check_tasks(
    loaded: LoadedRecipe,
    commits: Commits,
    collector: ErrorCollector,
    *,
    stream: Stream | None = None,
    recorded: Sequence[TaskReport] = (),
) -> tuple[CheckedTask, ...]:
    """Open the dataset of every task and collect all mistakes, each with its line in the recipe.

    Args:
        loaded: the recipe.
        commits: the commits of the datasets; a task without one is not opened.
        collector: receives the errors.
        stream: the stream, None if it is not resolved yet.
        recorded: the tasks of the steps that are published or on disk.

    Raises:
        HubError: the Hub does not respond.
    """
    tasks = loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ()
    if not tasks:
        return ()
    files = None if stream is None else _base_files(stream.base)
    heads = None if stream is None else OwnHeads(stream)
    checked: list[CheckedTask] = []
    for index, task in enumerate(tasks):
        interrupts.check()
        wrong = list(_language_errors(loaded, index, task))
        collector.errors += wrong
        is_opened = index in commits and not (wrong and task.kind == HARNESS_KIND)
        data = _open(loaded, index, commits[index], collector) if is_opened else None
        head = None if heads is None else _head(heads, loaded, index, collector, recorded)
        classes = None if data is None else _check_preview(loaded, index, data.preview, collector, files, head)
        for key, error in (*_metric_errors(task, classes), *_changes(task, commits.get(index), recorded)):
            collector.errors.append(located(error, loaded, (*TASKS, index, *key)))
        if data is not None:
            drawn = as_recorded(task, recorded)
            checked.append(describe_task(drawn, data, classes, [entry.name for entry in loaded.recipe.entries]))
    return tuple(checked)


def _head(
    heads: OwnHeads, loaded: LoadedRecipe, index: int, collector: ErrorCollector, recorded: Sequence[TaskReport]
) -> HeadFacts | None:
    """Return what is known of the head that scores a task: None for the base model's, nothing after a mistake."""
    assert loaded.recipe.evaluate is not None  # noqa: S101 - it has tasks
    task = loaded.recipe.evaluate.tasks[index]
    try:
        found = heads.of_task(task, recorded)
    except EvaluationError as error:
        collector.errors.append(located(error, loaded, (*TASKS, index, "head")))
    except (CheckpointError, HubError):
        pass  # of a missing step, the plan of the merge says why
    else:
        return None if found is None else found.facts
    return HeadFacts(task.head or task.name, None, {}, None, known=False)


def _open(loaded: LoadedRecipe, index: int, commits: Sequence[str], collector: ErrorCollector) -> OpenedData | None:
    """Open the dataset of a task; return None after a mistake, which is collected."""
    assert loaded.recipe.evaluate is not None  # noqa: S101 - it has tasks
    with collector.collect():
        return open_data(loaded, index, loaded.recipe.evaluate.tasks[index], commits)
    return None


def _language_errors(loaded: LoadedRecipe, index: int, task: Task) -> Iterator[EvaluationError]:
    """Yield the mistakes of a task of a language model that its dataset does not tell."""
    if task.kind in LANGUAGE_KINDS:
        from hubmerge.evaluation.harness_checks import check_language_task

        for key, error in check_language_task(task):
            yield located(error, loaded, (*TASKS, index, *key))


def _check_preview(
    loaded: LoadedRecipe,
    index: int,
    preview: DatasetPreview,
    collector: ErrorCollector,
    base: BaseFiles | None,
    head: HeadFacts | None,
) -> int | None:
    """Collect the mistakes of a task against its dataset, and return the number of its classes."""
    from hubmerge.evaluation.task_checks import check_task, class_count

    assert loaded.recipe.evaluate is not None  # noqa: S101 - it has tasks
    task = loaded.recipe.evaluate.tasks[index]
    for key, error in check_task(task, preview, base, head):
        collector.errors.append(located(error, loaded, (*TASKS, index, *key)))
    return class_count(task, preview)


def _changes(
    task: Task, commits: Sequence[str] | None, recorded: Sequence[TaskReport]
) -> Iterator[tuple[Key, EvaluationError]]:
    """Yield what makes the scores of a task others than those of earlier steps, with its place in the task."""
    try:
        check_sample(task, recorded)
    except EvaluationError as error:
        yield ("dataset", "max_examples"), error
    found = None if commits is None else data_error(task, commits, recorded)
    if found is not None:
        yield ("dataset", *found[0]), found[1]


def _metric_errors(task: Task, classes: int | None) -> Iterator[tuple[Key, EvaluationError]]:
    """Yield the metrics of a task that cannot be loaded or computed, with their place in the task."""
    if task.kind in KINDS_WITHOUT_CLASSES:
        return
    for number, name in enumerate(task.metrics):
        try:
            check_external_metrics([name] if name not in METRIC_NAMES else [])
            if name not in {"accuracy", "f1", "top-5", "confusion"} and task.kind in TASK_KIND_NAMES:
                _check_metric(name, 3 if classes is None else classes)
        except EvaluationError as error:
            yield ("metrics", number), error


def _check_metric(name: str, classes: int) -> None:
    from hubmerge.evaluation.metrics import check_class_metric, metric_named
    from hubmerge.hub.datasets import load_metric

    with tempfile.TemporaryDirectory(prefix="hubmerge-metric-") as folder:
        check_class_metric(metric_named(name, Path(folder), load_metric), name, classes)


def _base_files(base: Source) -> BaseFiles | None:
    """Return config and file names of the base model, None if they cannot be read: the plan of the merge says why."""
    try:
        names = frozenset(base.name_of(file) for file in files_of(base, auxiliary=True))
        content = _config(base)
    except (HubError, CheckpointError, OSError):
        return None
    try:
        config = json.loads(content)
    except ValueError:
        return None
    return BaseFiles(base.label, config, names) if isinstance(config, dict) else None


def _config(base: Source) -> bytes:
    if base.is_local:
        return (Path(base.reference.path) / CONFIG).read_bytes()
    path = "/".join(filter(None, (base.subfolder, CONFIG)))
    return fetch.read_checked(base.reference.path, base.commit, path) or b""
