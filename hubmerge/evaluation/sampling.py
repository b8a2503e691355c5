"""Examples of a split that a task scores, drawn by a seed.

The draw depends on the seed, the number of rows and the classes of the rows alone: it is equal on every machine and in
every version of Python and numpy.
"""

from __future__ import annotations

import numpy as np

from merge_recipes import DatasetReference

_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_CLASSES = 1
"""Stream of random numbers for classes; that for rows has the number 0."""


def choose_rows(count: int, source: DatasetReference, labels: np.ndarray | None = None) -> np.ndarray | None:
    """Return the numbers of the rows that a task scores, int64 in ascending order, or None for all rows.

    A balanced sample has equally many rows of each class, as far as a class has that many. If the classes cannot have
    equally many, the seed decides which have one more. Without classes, the rows are drawn uniformly.

    Args:
        count: the number of rows of the split.
        source: the dataset of the task.
        labels: the class of every row, int64 (count,); None for a task without classes.
    """
    size = source.max_examples
    if size is None or size >= count:
        return None
    if source.sample == "first":
        return np.arange(size)
    keys = _random_numbers(source.seed, count)
    if labels is None:
        return np.sort(np.argsort(keys, kind="stable")[:size])
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = class_quotas(counts, size, _random_numbers(source.seed, len(classes), stream=_CLASSES))
    by_class = np.lexsort((keys, numbers))
    rank = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(by_class[rank < np.repeat(quotas, counts)])


def class_quotas(counts: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """Return how many examples of each class a balanced sample has, int64 (C,).

    Args:
        counts: the number of rows of each class, int64 (C,).
        size: the number of examples, at most the number of rows.
        keys: random numbers, one for each class; classes with small ones get the examples that are left over.
    """
    quotas = np.zeros(len(counts), dtype=np.int64)
    while (left := size - int(quotas.sum())) > 0:
        room = counts - quotas
        open_classes = np.flatnonzero(room > 0)
        share = left // len(open_classes)
        if share == 0:
            order = np.argsort(keys[open_classes], kind="stable")
            quotas[open_classes[order[:left]]] += 1
        else:
            quotas[open_classes] += np.minimum(room[open_classes], share)
    return quotas


def _random_numbers(seed: int, count: int, *, stream: int = 0) -> np.ndarray:
    """Return `count` random numbers, uint64, by the finalizer of SplitMix64."""
    with np.errstate(over="ignore"):
        start = _mixed(np.array([seed], dtype=np.uint64) * np.uint64(2) + np.uint64(stream))
        return _mixed(start + np.arange(1, count + 1, dtype=np.uint64) * _STEP)


def _mixed(values: np.ndarray) -> np.ndarray:
    for shift, factor in _ROUNDS:
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
