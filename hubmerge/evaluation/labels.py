"""From a dataset's label column to class names and class numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from hubmerge.errors import EvaluationError


def read_labels(
    rows: datasets.Dataset, column: str, class_names: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The class names in order of their number, and the class number of every row, int64 (N,).

    Labels may be a `ClassLabel` (names come from the dataset; the recipe may rename them), booleans (two names: of
    False, then of True), whole numbers (names come from the recipe) or words (names in the recipe's order, else
    sorted). `where` names task and dataset in messages.

    Raises:
        EvaluationError: no such column, a label without a class, or names that do not fit the number of classes.
    """
    check_column(rows, column, "label", where)
    feature = rows.features[column]
    values = rows.with_format(None)[column][:]
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        raise EvaluationError(f"{where}: row {missing} has no label in column {column!r}")
    if isinstance(feature, datasets.ClassLabel):
        names = _renamed(feature, class_names, where)
        return names, _checked(values, names, column, where)
    kind = getattr(feature, "dtype", "")
    if kind == "string" or kind == "large_string":
        return _from_words(values, class_names, column, where)
    if kind == "bool" or kind.startswith(("int", "uint")):
        if class_names is None:
            what = "boolean" if kind == "bool" else "a number"
            raise EvaluationError(
                f"{where}: column {column!r} is {what}, and the dataset does not name its classes",
                hint="give class_names in the recipe, in the order of the label values",
            )
        names = tuple(class_names)
        if kind == "bool" and len(names) != 2:
            raise EvaluationError(
                f"{where}: column {column!r} is boolean but class_names holds {len(names)} names",
                hint="give two names: the one of false, then the one of true",
            )
        return names, _checked(values, names, column, where)
    raise EvaluationError(
        f"{where}: column {column!r} holds {feature}, not classes",
        hint="name a column of class labels, whole numbers, booleans or words",
    )


def check_column(rows: datasets.Dataset, column: str, role: str, where: str) -> None:
    """Raise EvaluationError naming the columns there are, unless `column` is one of them."""
    if column not in rows.column_names:
        raise EvaluationError(
            f"{where}: no {role} column {column!r} in the dataset; its columns: {', '.join(rows.column_names)}",
            hint=f"set `dataset: {{{role}: ...}}` of the task to one of them",
        )


def _renamed(feature: datasets.ClassLabel, class_names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    if class_names is None:
        return tuple(feature.names)
    if len(class_names) != feature.num_classes:
        raise EvaluationError(
            f"{where}: class_names holds {len(class_names)} names, the dataset has {feature.num_classes} classes",
            hint="give one name per class, in the dataset's order, or leave class_names out",
        )
    _check_order(feature.names, class_names, where)
    return tuple(class_names)


def _check_order(own: Sequence[str], given: Sequence[str], where: str) -> None:
    """Refuse names that the dataset has too, but for other numbers: scores would be wrong and nothing would tell."""
    places = {letters(name): number for number, name in enumerate(own)}
    if len(places) < len(own):
        return
    for number, name in enumerate(given):
        place = places.get(letters(name), number)
        if place != number:
            raise EvaluationError(
                f"{where}: class_names calls class {number} {name!r}, the dataset calls it {own[number]!r} and has "
                f"{own[place]!r} as class {place}",
                hint="give the names in the dataset's order, or leave class_names out",
            )


def letters(name: str) -> str:
    """A name without what differs between spellings: case, blanks, underscores, marks."""
    return "".join(letter for letter in name.casefold() if letter.isalnum()) or name


def _checked(values: Sequence[Any], names: Sequence[str], column: str, where: str) -> np.ndarray:
    numbers = np.asarray(values).astype(np.int64)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
    if wrong.size:
        row = int(wrong[0])
        raise EvaluationError(
            f"{where}: row {row} has label {numbers[row]} in column {column!r}, outside 0..{len(names) - 1}",
            hint="the split may be unlabelled, or class_names is too short",
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
            hint="class_names must hold every label of the dataset, letter by letter",
        )
    return names, np.asarray([number[value] for value in values], dtype=np.int64)
