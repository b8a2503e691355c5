"""Samples of `max_examples`: seeded, balanced over the classes, equal on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hubmerge.evaluation.sampling import choose_rows, class_quotas
from merge_recipes import DatasetReference

SORTED = np.repeat(np.arange(5), [40, 30, 20, 8, 2])
GOLDEN = [
    [203, 254, 366, 410, 503, 566, 821, 986],
    [39, 209, 232, 280, 286, 527, 771, 932],
    [33, 42, 53, 76, 88, 94, 98, 99],
]


def chosen(count: int, labels: np.ndarray | None = None, **keys: Any) -> list[int]:
    rows = choose_rows(count, DatasetReference(path="me/data", **keys), labels)
    assert rows is not None
    assert list(rows) == sorted(set(rows.tolist()))
    return list(rows.tolist())


def test_all_rows_without_a_limit_or_with_a_large_one() -> None:
    for limit in (None, 100, 101):
        assert choose_rows(100, DatasetReference(path="me/data", max_examples=limit), SORTED) is None


def test_a_split_sorted_by_class_has_every_class() -> None:
    for size, expected in ((5, [1] * 5), (50, [14, 13, 13, 8, 2]), (99, None)):
        rows = chosen(100, SORTED, max_examples=size)
        counts = np.bincount(SORTED[rows], minlength=5)
        assert counts.sum() == size
        assert expected is None or sorted(counts) == sorted(expected)
        assert counts[4] == min(2, size // 5)


def test_fewer_examples_than_classes() -> None:
    labels = np.arange(100) // 2
    rows = chosen(100, labels, max_examples=7)
    assert len(set(labels[rows])) == 7
    assert rows != list(range(7))
    assert rows != chosen(100, labels, max_examples=7, seed=1)


def test_the_draw_is_the_same_everywhere() -> None:
    """These numbers are in published scores: they may never change."""
    assert chosen(1000, max_examples=8) == GOLDEN[0]
    assert chosen(1000, max_examples=8, seed=7) == GOLDEN[1]
    assert chosen(100, SORTED, max_examples=8) == GOLDEN[2]


def test_the_start_of_a_split_on_request() -> None:
    assert chosen(100, SORTED, max_examples=3, sample="first") == [0, 1, 2]


def test_names_and_order_of_classes_do_not_matter() -> None:
    spread = np.random.default_rng(0).permutation(SORTED)
    for labels in (spread, spread * 3 + 1):
        rows = chosen(100, labels, max_examples=20)
        assert rows == chosen(100, spread, max_examples=20)


@pytest.mark.parametrize("seed", range(20))
def test_every_quota_is_as_equal_as_the_classes_allow(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = random.integers(1, 30, size=random.integers(1, 12))
    size = int(random.integers(1, counts.sum() + 1))
    quotas = class_quotas(counts, size, random.integers(0, 2**63, len(counts)).astype(np.uint64))
    assert quotas.sum() == size
    assert (quotas <= counts).all()
    smaller = quotas < counts
    assert not smaller.any() or quotas.max() - quotas[smaller].min() <= 1


def test_large_splits_are_drawn_uniformly() -> None:
    rows = np.asarray(chosen(1_000_000, max_examples=100_000))
    shares = np.bincount(rows // 100_000, minlength=10) / 10_000
    assert (abs(shares - 1) < 0.05).all()
