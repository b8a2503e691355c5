"""Class names and class numbers from the label column of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from hubmerge.errors import EvaluationError
from hubmerge.support.text import counted


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
    check_column(rows, column, "label", where)
    feature = rows.features[column]
    kind = getattr(feature, "dtype", "")
    values = _values(rows, column, where)
    if isinstance(feature, datasets.ClassLabel):
        names = _renamed(feature, class_names, where)
    elif kind in {"string", "large_string"}:
        return _from_words(values, class_names, column, where)
    elif kind == "bool" or kind.startswith(("int", "uint")):
        names = _given_names(class_names, column, where, boolean=kind == "bool")
    else:
        raise EvaluationError(
            f"{where}: column {column!r} holds {feature}, not classes",
            hint="set `dataset: {label: COLUMN}` of the task to a column of class labels, whole numbers, booleans or "
            "words",
        )
    return names, _checked(values, names, column, where)


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


def check_column(rows: datasets.Dataset, column: str, role: str, where: str) -> None:
    """Check that a dataset has a column.

    Args:
        rows: the dataset.
        column: the name of the column.
        role: the key of the column in the recipe: "label", "image" or "text".
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: the column is missing.
    """
    if column not in rows.column_names:
        raise EvaluationError(
            f"{where}: no {role} column {column!r} in the dataset; its columns: {', '.join(rows.column_names)}",
            hint=f"set `dataset: {{{role}: COLUMN}}` of the task to one of them",
        )


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
    """Refuse names that the dataset has for other classes, because the scores would be wrong without a warning."""
    places = {letters(name): number for number, name in enumerate(own)}
    if len(places) < len(own):
        return
    for number, name in enumerate(given):
        place = places.get(letters(name), number)
        if place != number:
            raise EvaluationError(
                f"{where}: class {number} is {name!r} in class_names, but {own[number]!r} in the dataset, where "
                f"{own[place]!r} is class {place}",
                hint="set `class_names` in the order of the dataset, or remove it",
            )


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
            hint="choose a split with labels, or add the missing names to `class_names`",
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
