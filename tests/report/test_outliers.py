"""Entries far off the others: among five or more, by the median absolute deviation."""

from __future__ import annotations

import pytest

from hubmerge.report.outliers import cosine_outliers, far_off, norm_outliers, outlier_warnings

NORMS = {"a": 1.0, "b": 1.2, "c": 0.9, "d": 1.1, "e": 1.05}


def test_fewer_than_five_entries_have_no_outlier() -> None:
    four = {**dict(list(NORMS.items())[:3]), "e": 1e6}
    assert norm_outliers(four) == {}
    assert cosine_outliers(four) == {}
    assert far_off(four, smallest=0.0) == {}


@pytest.mark.parametrize(("norm", "text"), [(10.0, "9.09 times as long"), (0.01, "0.91 % as long")])
def test_long_and_short_task_vectors(norm: float, text: str) -> None:
    assert norm_outliers(NORMS) == {}
    found = norm_outliers({**NORMS, "e": norm, "f": 1.1, "g": 1.15})
    assert list(found) == ["e"]
    assert text in found["e"]


def test_a_zero_task_vector_is_named() -> None:
    assert "is the base model" in norm_outliers({**NORMS, "f": 0.0})["f"]
    assert list(norm_outliers({**NORMS, "f": 0.0})) == ["f"]


def test_entries_that_hardly_differ_have_no_outlier() -> None:
    assert norm_outliers(dict.fromkeys("abcdef", 1.0) | {"g": 1.01}) == {}
    assert cosine_outliers(dict.fromkeys("abcdef", 0.1) | {"g": 0.15}) == {}


def test_opposed_task_vectors() -> None:
    cosines = {"a": 0.3, "b": 0.32, "c": 0.29, "d": 0.31, "e": -0.4}
    assert list(cosine_outliers(cosines)) == ["e"]


def test_each_entry_is_warned_of_once() -> None:
    names = ["bad", "a", "b", "c", "d", "e", "worse"]
    norms = [90.0, 1.0, 1.1, 0.9, 1.0, 1.05, 0.001]
    by_step = [outlier_warnings(names[:step], norms[:step], ()) for step in range(1, 8)]
    assert [len(found) for found in by_step] == [0, 0, 0, 0, 1, 0, 1]
    assert by_step[4][0].startswith("bad lies far off")
    assert by_step[6][0].startswith("worse lies far off")


def test_entries_that_were_taken_out_do_not_count() -> None:
    names = ["bad", "a", "b", "c", "bad-revoked", "d"]
    assert outlier_warnings(names, [90.0, 1.0, 1.1, 0.9, 90.0, 1.0], {"bad", "bad-revoked"}) == []
    assert outlier_warnings(names[:5], [90.0, 1.0, 1.1, 0.9, 90.0], {"bad", "bad-revoked"}) == []
