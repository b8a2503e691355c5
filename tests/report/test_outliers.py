"""Entries far off the others: among five or more, by the median absolute deviation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from hubmerge.report.outliers import (
    OPPOSED,
    cosine_outliers,
    cosine_warnings,
    far_off,
    norm_outliers,
    outlier_warnings,
    recorded_outliers,
)
from hubmerge.report.report import ModelReport, RunReport, StepReport, StepSimilarity

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


def cosines_of(
    names: Sequence[str], table: Mapping[tuple[str, str], float], usual: float
) -> dict[str, dict[str, float]]:
    """Return cosines between all pairs: those of the table, and the usual one."""
    return {
        one: {other: table.get((one, other), table.get((other, one), usual)) for other in names if other != one}
        for one in names
    }


def test_an_entry_that_points_away_is_named() -> None:
    names = ["a", "b", "c", "d", "e", "odd"]
    away = {("odd", name): 0.0 for name in names[:5]}
    [warning] = cosine_warnings(cosines_of(names, away, 0.3), "odd")
    assert warning.startswith(
        "odd lies far off the other entries: the mean cosine of its task vector with theirs is 0.00"
    )
    assert "the median of all entries is 0.24" in warning
    assert cosine_warnings(cosines_of(names, away, 0.3), "e") == []  # odd was named when it was merged


def test_the_fifth_entry_names_all() -> None:
    names = ["odd", "a", "b", "c", "d"]
    away = {("odd", name): -0.1 for name in names[1:]}
    for count in (2, 3, 4):
        assert cosine_warnings(cosines_of(names[:count], away, 0.4), names[count - 1]) == []
    [warning] = cosine_warnings(cosines_of(names, away, 0.4), "d")
    assert warning.startswith("odd lies far off")


def test_an_entry_that_is_opposed_to_another_is_named_with_it() -> None:
    names = ["a", "b", "c"]
    [warning] = cosine_warnings(cosines_of(names, {("b", "c"): -0.9}, 0.0), "c")
    assert warning.startswith("the task vector of c is opposed to that of b (cosine about -0.90):")
    assert cosine_warnings(cosines_of(names, {("b", "c"): -0.9}, 0.0), "a") == []
    assert cosine_warnings(cosines_of(names, {("b", "c"): OPPOSED + 0.01}, 0.0), "c") == []
    both = {("b", "c"): -0.9, ("a", "c"): -0.3}
    assert "(cosine about -0.90), and to 1 more" in cosine_warnings(cosines_of(names, both, 0.0), "c")[0]


def recorded(names: Sequence[str], cosine: Callable[[str, str], float | None]) -> RunReport:
    """Return a report of steps with task vectors of one length, and the cosines between them that are known."""
    steps = []
    for number, name in enumerate(names, start=1):
        earlier = [(place, other, cosine(name, other)) for place, other in enumerate(names[: number - 1], start=1)]
        similar = tuple(StepSimilarity(place, other, value) for place, other, value in earlier if value is not None)
        steps.append(StepReport(number, name, f"a/{name}", "c", 1.0, 1.0, 1.0, similarities=similar))
    return RunReport(ModelReport("a/b", "c"), "wudi", "d", steps=tuple(steps))


def test_a_plan_names_recorded_entries_that_point_away() -> None:
    names = [*"abcdef"]
    [warning] = recorded_outliers(recorded(names, lambda one, other: 0.0 if "c" in {one, other} else 0.4))
    assert warning.startswith(
        "c lies far off the other entries: the mean cosine of its task vector with theirs is 0.00"
    )
    assert recorded_outliers(recorded(names, lambda *_: 0.4)) == []
    missing = recorded(
        names, lambda one, other: None if {one, other} == {"a", "b"} else 0.4 * ("c" not in {one, other})
    )
    assert recorded_outliers(missing) == []


def test_similar_entries_are_no_outliers() -> None:
    names = [*"abcdefgh"]
    assert cosine_warnings(cosines_of(names, {("g", "h"): 1.0}, 0.0), "h") == []
    assert cosine_warnings({name: {} for name in names}, "h") == []  # all task vectors are zero
    assert cosine_warnings({}, "h") == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_trained_streams_of_the_studies_have_no_outliers(seed: int) -> None:
    path = Path(__file__).parents[2] / "docs" / "study" / f"alpha-{seed}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    references = next(row for row in rows if row["kind"] == "references")
    norms = {step["name"]: step["task_vector_norm"] for row in rows if row["kind"] == "cell" for step in row["steps"]}
    names, table = references["names"], references["cosines"]
    assert len(names) >= 8
    for count in range(1, len(names) + 1):
        known = [(place, name) for place, name in enumerate(names[:count])]
        cosines = {one: {other: table[i][j] for j, other in known if j != i} for i, one in known}
        assert cosine_warnings(cosines, names[count - 1]) == []
    merged = [name for name in names if name in norms]
    for count in range(1, len(merged) + 1):
        assert outlier_warnings(merged[:count], [norms[name] for name in merged[:count]], ()) == []
