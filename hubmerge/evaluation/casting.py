"""Columns of a dataset as the recipe casts them: images, values of a type, or classes with names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import datasets

from hubmerge.errors import DatasetError
from hubmerge.evaluation.columns import holds_image_bytes, holds_words
from hubmerge.evaluation.labels import misplaced
from hubmerge.evaluation.preview import DatasetPreview
from hubmerge.support.text import listed
from merge_recipes import DatasetReference
from merge_recipes.dataset import Cast


def cast_rows(rows: datasets.Dataset, source: DatasetReference) -> datasets.Dataset:
    """Return rows with the columns that the recipe casts.

    Raises:
        DatasetError: a column is missing, or its values cannot be cast.
    """
    for column, target in source.cast.items():
        feature = _target(rows.features, column, target, source)
        if isinstance(target, tuple) and holds_words(rows.features[column]):
            _check_words(rows.with_format(None).unique(column), column, target, source)
        try:
            rows = rows.cast_column(column, feature)
        except Exception as error:  # pyarrow and datasets raise many types
            raise _failure(source, f"column {column!r} cannot be cast: {str(error).splitlines()[0]}") from error
    return rows


def cast_preview(preview: DatasetPreview, source: DatasetReference) -> DatasetPreview:
    """Return a preview with the columns that the recipe casts.

    Raises:
        DatasetError: a column is missing, or cannot be cast.
    """
    columns, labels = preview.columns, preview.labels
    if not source.cast:
        return preview
    for column, target in source.cast.items():
        feature = _target(columns, column, target, source)
        if column == source.label and labels is not None:
            labels = _cast_labels(labels, column, target, source)
        columns[column] = feature
    return replace(preview, features=columns.to_dict(), labels=labels)


def _target(features: datasets.Features, column: str, target: Cast, source: DatasetReference) -> Any:
    """Return the feature that a column is cast to."""
    if column not in features:
        raise _failure(source, f"`cast` names the column {column!r}; the dataset has {listed(list(features), 8)}")
    feature = features[column]
    if target == "image":
        if isinstance(feature, datasets.Image) or holds_image_bytes(feature):
            return datasets.Image()
        raise _failure(source, f"column {column!r} holds {feature}, which cannot be cast to images")
    kind = getattr(feature, "dtype", "")
    if not isinstance(feature, (datasets.Value, datasets.ClassLabel)) or not isinstance(kind, str):
        raise _failure(source, f"column {column!r} holds {feature}, which cannot be cast to {_named(target)}")
    if isinstance(target, tuple):
        if not (holds_words(feature) or kind == "bool" or kind.startswith(("int", "uint"))):
            raise _failure(source, f"column {column!r} holds {feature}, which cannot be cast to classes")
        problem = misplaced(feature.names, target, "cast") if isinstance(feature, datasets.ClassLabel) else None
        if problem is not None:  # a cast keeps the numbers
            raise _failure(source, f"column {column!r}: {problem}")
        return datasets.ClassLabel(names=list(target))
    if isinstance(feature, datasets.ClassLabel) and target == "string":
        raise _failure(source, f"column {column!r} has names of classes already, and `string` would write numbers")
    return datasets.Value(target)


def _cast_labels(labels: list[Any], column: str, target: Cast, source: DatasetReference) -> list[Any] | None:
    """Return the distinct labels of a column after it is cast, None if only the rows tell them."""
    if isinstance(target, tuple):
        if labels and isinstance(labels[0], str):
            _check_words(labels, column, target, source)
            return sorted(target.index(label) for label in labels)
        return [int(label) for label in labels]
    return sorted(map(str, labels)) if target == "string" else None


def _check_words(labels: list[Any], column: str, names: tuple[str, ...], source: DatasetReference) -> None:
    unknown = sorted(str(label) for label in labels if label is not None and label not in names)
    if unknown:
        raise _failure(source, f"column {column!r} holds the label {unknown[0]!r}, which `cast` does not name")


def _named(target: Cast) -> str:
    return "classes" if isinstance(target, tuple) else str(target)


def _failure(source: DatasetReference, problem: str) -> DatasetError:
    place: Mapping[str, Any] = {"file": source.path} if source.is_local else {"repo": source.path}
    return DatasetError(
        f"dataset {source.path}, split {source.split}: {problem}",
        hint="write `cast: {COLUMN: TYPE}`, with image, a type such as string or int64, or a list of all classes",
        key="cast",
        **place,
    )
