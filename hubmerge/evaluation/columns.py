"""Columns of a dataset that a task reads: whether they exist, and whether they hold what the task needs."""

from __future__ import annotations

import datasets

from hubmerge.errors import EvaluationError
from merge_recipes import DatasetReference

DEFAULT_TEXT_COLUMN = "text"
_TEXTS = frozenset({"string", "large_string"})


def check_column(features: datasets.Features, column: str, role: str, where: str) -> None:
    """Check that a dataset has a column.

    Args:
        features: the columns of the dataset.
        column: the name of the column.
        role: the key of the column in the recipe: "label", "image" or "text".
        where: the task and its dataset, for messages.

    Raises:
        EvaluationError: the column is missing.
    """
    if column not in features:
        raise EvaluationError(
            f"{where}: no {role} column {column!r} in the dataset; its columns: {', '.join(features)}",
            hint=f"set `dataset: {{{role}: COLUMN}}` of the task to one of them",
        )


def check_images(features: datasets.Features, column: str, where: str) -> None:
    """Check that a column holds images.

    Raises:
        EvaluationError: the column is missing, or holds something else.
    """
    check_column(features, column, "image", where)
    if not isinstance(features[column], datasets.Image) and not holds_image_bytes(features[column]):
        raise EvaluationError(
            f"{where}: column {column!r} holds {features[column]}, not images",
            hint="set `dataset: {image: COLUMN}` of the task to a column of images",
        )


def holds_image_bytes(feature: object) -> bool:
    """Return True if a column holds the bytes of files: as they are, or in pairs of `bytes` and `path`."""
    if isinstance(feature, dict):
        return {"bytes"} <= set(feature) <= {"bytes", "path"} and holds_image_bytes(feature["bytes"])
    return getattr(feature, "dtype", "") in {"binary", "large_binary"}


def text_column(source: DatasetReference) -> str:
    """Return the name of the column with the texts of a task."""
    return source.text or DEFAULT_TEXT_COLUMN


def check_texts(features: datasets.Features, column: str, where: str, role: str = "text") -> None:
    """Check that a column holds texts; `role` is its key in the recipe.

    Raises:
        EvaluationError: the column is missing, or holds something else.
    """
    check_column(features, column, role, where)
    if getattr(features[column], "dtype", "") not in _TEXTS:
        raise EvaluationError(
            f"{where}: column {column!r} holds {features[column]}, not texts",
            hint=f"set `dataset: {{{role}: COLUMN}}` of the task to a column of texts",
        )


def check_numbers(features: datasets.Features, column: str, role: str, where: str) -> None:
    """Check that a column holds numbers; `role` is its key in the recipe.

    Raises:
        EvaluationError: the column is missing, or holds something else.
    """
    check_column(features, column, role, where)
    kind = getattr(features[column], "dtype", "")
    if not isinstance(kind, str) or not kind.startswith(("int", "uint", "float")):
        raise EvaluationError(
            f"{where}: column {column!r} holds {features[column]}, not numbers",
            hint=f"set `dataset: {{{role}: COLUMN}}` of the task to a column of numbers",
        )


def holds_words(feature: object) -> bool:
    """Return True if a column holds texts."""
    return getattr(feature, "dtype", "") in _TEXTS


def check_labels(features: datasets.Features, column: str, where: str) -> None:
    """Check that a column holds class labels, whole numbers, booleans or words.

    Raises:
        EvaluationError: the column is missing, or holds something else.
    """
    check_column(features, column, "label", where)
    feature = features[column]
    kind = getattr(feature, "dtype", "")
    if not isinstance(kind, str) or not (
        isinstance(feature, datasets.ClassLabel) or kind in {*_TEXTS, "bool"} or kind.startswith(("int", "uint"))
    ):
        raise EvaluationError(
            f"{where}: column {column!r} holds {feature}, not classes",
            hint="set `dataset: {label: COLUMN}` of the task to a column of class labels, whole numbers, booleans or "
            "words",
        )
