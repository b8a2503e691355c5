"""Data of a task, opened before any weight is read: columns, and the number of examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hubmerge.errors import DatasetError
from hubmerge.stream.located import located
from hubmerge.stream.task_datasets import TASKS
from merge_recipes import DatasetReference, LoadedRecipe, Task
from merge_recipes.language_task import HARNESS_KIND

if TYPE_CHECKING:
    from hubmerge.evaluation.preview import DatasetPreview


@dataclass(frozen=True)
class OpenedData:
    """Data of a task.

    Attributes:
        preview: the preview of its rows; of a group, the columns of the first split and the rows of all its tasks.
        max_examples: the number of examples to score, None for all; of a group, for all its tasks together.
    """

    preview: DatasetPreview
    max_examples: int | None


def open_data(loaded: LoadedRecipe, index: int, task: Task, commits: Sequence[str]) -> OpenedData:
    """Open everything that a task reads.

    Args:
        loaded: the recipe.
        index: the number of the task in the recipe, from 0.
        task: the task.
        commits: the commit of each source of its dataset.

    Raises:
        DatasetError: something cannot be opened; the error has its line in the recipe.
        EvaluationError: the task is unknown to lm-evaluation-harness.
    """
    from hubmerge.hub.dataset_preview import preview_dataset  # its libraries take seconds to import

    number = 0
    try:
        if task.kind == HARNESS_KIND:
            from hubmerge.evaluation.harness_sources import splits_of

            splits, previews = splits_of(task), []
            for number, split in enumerate(splits):
                previews.append(preview_dataset(split.reference, commits[number]))
            return _together(previews, [split.tasks for split in splits], [split.is_whole for split in splits], task)
        if task.dataset.corpus is not None:
            _open_parts(task.dataset, commits[0])
        number = len(commits) - 1
        return OpenedData(preview_dataset(task.dataset.rows, commits[-1]), task.dataset.max_examples)
    except DatasetError as error:
        keys = task.dataset.keys_of(number, error.key)
        raise located(error, loaded, (*TASKS, index, "dataset", *keys)) from error


def _together(
    previews: Sequence[DatasetPreview], tasks: Sequence[int], whole: Sequence[bool], task: Task
) -> OpenedData:
    """Return the data of a task of lm-evaluation-harness, whose limit is that of each task in it."""
    limit = task.dataset.max_examples
    sizes = [one.rows if is_whole else None for one, is_whole in zip(previews, whole, strict=True)]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return OpenedData(replace(previews[0], rows=None), None if limit is None else limit * sum(tasks))
    rows = sum(count * size for count, size in zip(tasks, known, strict=True))
    scored = sum(count * min(size, limit or size) for count, size in zip(tasks, known, strict=True))
    return OpenedData(replace(previews[0], rows=rows), scored if sum(tasks) > 1 and limit is not None else limit)


def _open_parts(source: DatasetReference, commit: str) -> None:
    """Open documents and queries of a dataset in the form of BEIR.

    Raises:
        DatasetError: one cannot be opened.
    """
    from hubmerge.evaluation.retrieval_columns import part_of
    from hubmerge.hub.dataset_preview import preview_dataset

    for part in ("corpus", "queries"):
        try:
            preview_dataset(part_of(source, part), commit)
        except DatasetError as error:
            if error.key in {"name", "split"}:
                error.key, error.hint = part, f"set `dataset: {{{part}: ...}}` to the configuration that holds them"
            raise
