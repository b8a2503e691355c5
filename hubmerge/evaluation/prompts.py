"""Prompts of tasks that generate texts, and their reference texts, from the columns of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.columns import check_column, holds_words, text_column
from hubmerge.evaluation.task_keys import task_place
from merge_recipes import Task
from merge_recipes.errors import did_you_mean

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_PLAIN_TYPES = ("string", "large_string", "bool", "int", "uint", "float")
Key = tuple[str, ...]


def template_of(task: Task) -> str:
    """Return the template of the prompts: by default the text column alone."""
    return task.prompt if task.prompt is not None else f"{{{text_column(task.dataset)}}}"


def check_columns(task: Task, features: datasets.Features) -> Iterator[tuple[Key, EvaluationError]]:
    """Yield the mistakes of a task in its template and its columns, each with the key that it is about."""
    place, source = task_place(task), task.dataset
    key: Key = ("prompt",) if task.prompt is not None else ("dataset", "text")
    try:
        for column in _columns(task):
            if task.prompt is None:
                check_column(features, column, "text", place)
            elif column not in features:
                raise EvaluationError(
                    f"{place}: the dataset has no column {column!r} for the prompt{did_you_mean(column, features)}",
                    hint="write {{ and }} for braces that are text",
                )
            if not str(getattr(features[column], "dtype", "")).startswith(_PLAIN_TYPES):
                raise EvaluationError(
                    f"{place}: column {column!r} holds {features[column]}, not texts or numbers",
                    hint="name other columns in the prompt",
                )
    except EvaluationError as error:
        yield key, error
    try:
        check_column(features, source.label, "label", place)
        feature = features[source.label]
        inner = getattr(feature, "feature", feature)
        if not holds_words(inner) or isinstance(inner, datasets.ClassLabel):
            raise EvaluationError(
                f"{place}: column {source.label!r} holds {feature}, not texts or lists of texts",
                hint="set `dataset: {label: COLUMN}` of the task to the column with the answers",
            )
    except EvaluationError as error:
        yield ("dataset", "label"), error


def _columns(task: Task) -> list[str]:
    """Return the columns that a template names.

    Raises:
        EvaluationError: it names none, or has a brace too many.
    """
    template = template_of(task)
    rest = _PLACE.sub("", template)
    found = [match[1] for match in _PLACE.finditer(template) if match[1] is not None]
    if not found or "{" in rest or "}" in rest:
        raise EvaluationError(
            f"task {task.name}: the prompt {template[:60]!r} needs a column in braces, such as {{question}}",
            hint="write {{ and }} for braces that are text",
        )
    return found


def filled(template: str, row: Mapping[str, Any]) -> str:
    """Return a template with the values of a row in place of its columns.

    >>> filled("Q: {question} {{x}}", {"question": "why?"})
    'Q: why? {x}'
    """
    return _PLACE.sub(lambda match: match[0][0] if match[1] is None else str(row[match[1]]), template)


def read_prompts(task: Task, rows: datasets.Dataset, numbers: Sequence[int]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the prompt and the reference texts of some rows.

    Args:
        task: the task.
        rows: the rows of its dataset.
        numbers: the numbers of the rows.

    Raises:
        EvaluationError: a column is missing or empty.
    """
    for _, error in check_columns(task, rows.features):
        raise error
    place, template, label = task_place(task), template_of(task), task.dataset.label
    columns = _columns(task)
    prompts, references = [], []
    for number, row in zip(numbers, rows.with_format(None).select(numbers), strict=True):
        empty = next((name for name in (*columns, label) if row[name] is None or row[name] == []), None)
        if empty is not None:
            raise EvaluationError(f"{place}: row {number} has no text in column {empty!r}")
        prompts.append(filled(template, row))
        texts = row[label] if isinstance(row[label], list) else [row[label]]
        references.append(tuple(map(str, texts)))
    if not prompts:
        raise EvaluationError(f"{place}: no examples", hint="set `split` of the dataset to a split with examples")
    return prompts, references
