"""Class names and class numbers from the label column of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from hubmerge.errors import EvaluationError
from hubmerge.evaluation.columns import check_labels, holds_words
from hubmerge.support.text import counted

OUTSIDE_HINT = "choose a split with labels, or add the missing names to `class_names`"


def read_labels(
    rows: datasets.Dataset, column: str, class_names: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names in order of their number, and the class number of every row, int64 (N,).

    The labels may be:

    - a `ClassLabel`: the names are in the dataset, and the recipe may rename them;
    - booleans: the recipe names False, then True;
    - whole numbers: the names are in the recipe;
    - words: the names are in the order of the recipe, else sorted.

    Args:
        rows: the dataset.
        column: the name of the label column.
        class_names: the names in the recipe, None if there are none.
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: the column is missing, a label has no class, or the number of names is wrong.
    """
    names = declared_names(rows.features, column, class_names, where)
    values = _values(rows, column, where)
    if holds_words(rows.features[column]):
        return _from_words(values, names, column, where)
    assert names is not None  # noqa: S101 - only words have no declared names
    return names, _checked(values, names, column, where)


def declared_names(
    features: datasets.Features, column: str, class_names: Sequence[str] | None, where: str
) -> tuple[str, ...] | None:
    """Return the class names that the dataset or the recipe gives, None if they are the words in the column.

    Raises:
        EvaluationError: the column is missing or holds no classes, or the number of names is wrong.
    """
    check_labels(features, column, where)
    feature = features[column]
    if isinstance(feature, datasets.ClassLabel):
        return _renamed(feature, class_names, where)
    if holds_words(feature):
        return None if class_names is None else tuple(class_names)
    return _given_names(class_names, column, where, boolean=feature.dtype == "bool")


def have_order(features: datasets.Features, column: str, class_names: Sequence[str] | None) -> bool:
    """Return True if the dataset or the recipe gives the order of the classes."""
    return class_names is not None or not holds_words(features.get(column))


def check_label_values(values: Sequence[Any], names: Sequence[str] | None, column: str, where: str) -> None:
    """Check that every label of a column has a class.

    Args:
        values: the labels, each of them at least once.
        names: the names of the classes, None if they are the words in the column.
        column: the name of the column.
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: a label has no class.
    """
    if names is None:
        return
    if values and isinstance(values[0], str):
        _from_words(values, names, column, where)
        return
    wrong = next((value for value in values if not 0 <= value < len(names)), None)
    if wrong is not None:
        raise EvaluationError(
            f"{where}: label {wrong} in column {column!r}, outside 0..{len(names) - 1}", hint=OUTSIDE_HINT
        )


def _values(rows: datasets.Dataset, column: str, where: str) -> list[Any]:
    """Return the label of every row, as the dataset holds it."""
    values: list[Any] = rows.with_format(None)[column][:]
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        raise EvaluationError(f"{where}: row {missing} has no label in column {column!r}")
    return values


def _given_names(class_names: Sequence[str] | None, column: str, where: str, *, boolean: bool) -> tuple[str, ...]:
    """Return the names in the recipe for labels that have none in the dataset."""
    if class_names is None:
        raise EvaluationError(
            f"{where}: column {column!r} is {'boolean' if boolean else 'a number'}, and the dataset has no class names",
            hint="set `class_names` of the task, in the order of the label values",
        )
    if boolean and len(class_names) != 2:
        raise EvaluationError(
            f"{where}: column {column!r} is boolean, but class_names has {counted(len(class_names), 'name')}",
            hint="set `class_names` of the task to two names: for false, then for true",
        )
    return tuple(class_names)


def _renamed(feature: datasets.ClassLabel, class_names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    if class_names is None:
        return tuple(feature.names)
    if len(class_names) != feature.num_classes:
        raise EvaluationError(
            f"{where}: class_names has {counted(len(class_names), 'name')}, the dataset has "
            f"{feature.num_classes} classes",
            hint="set `class_names` to one name for each class in the order of the dataset, or remove it",
        )
    _check_order(feature.names, class_names, where)
    return tuple(class_names)


def _check_order(own: Sequence[str], given: Sequence[str], where: str) -> None:
    problem = misplaced(own, given, "class_names")
    if problem is not None:
        raise EvaluationError(f"{where}: {problem}", hint="set `class_names` in the order of the dataset, or remove it")


def misplaced(own: Sequence[str], given: Sequence[str], key: str) -> str | None:
    """Return which name the dataset has for another class, so that scores would be wrong without a warning.

    Args:
        own: the names of the classes in the dataset.
        given: the names of the classes in the recipe.
        key: the key of the recipe that gives them.

    Returns:
        The problem in words, None if there is none.
    """
    places = {letters(name): number for number, name in enumerate(own)}
    if len(places) < len(own):
        return None
    for number, name in enumerate(given[: len(own)]):
        place = places.get(letters(name), number)
        if place != number:
            return (
                f"class {number} is {name!r} in {key}, but {own[number]!r} in the dataset, where {own[place]!r} is "
                f"class {place}"
            )
    return None


def letters(name: str) -> str:
    """Return a name in lower case without blanks, underscores and punctuation."""
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def _checked(values: Sequence[Any], names: Sequence[str], column: str, where: str) -> np.ndarray:
    numbers = np.asarray(values).astype(np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if wrong.size:
        row = int(wrong[0])
        raise EvaluationError(
            f"{where}: row {row} has label {numbers[row]} in column {column!r}, outside 0..{len(names) - 1}",
            hint=OUTSIDE_HINT,
        )
    return numbers


def _from_words(
    values: Sequence[str], class_names: Sequence[str] | None, column: str, where: str
) -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(sorted(set(values)) if class_names is None else class_names)
    number = {name: index for index, name in enumerate(names)}
    unknown = sorted(set(values) - set(number))
    if unknown:
        raise EvaluationError(
            f"{where}: column {column!r} holds the label {unknown[0]!r}, which is not among class_names",
            hint="set `class_names` to all labels of the dataset, with the same spelling",
        )
    return names, np.asarray([number[value] for value in values], dtype=np.int64)
