from __future__ import annotations

import json
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubmerge.report.accuracy import (
    AVERAGE_ACCURACY_DEFINITION,
    BACKWARD_TRANSFER_DEFINITION,
    AccuracyMatrix,
    percent,
)

ROWS = {
    1: {"a": 0.9},
    2: {"a": 0.8, "b": 0.7},
    3: {"a": 0.6, "b": 0.75, "c": 0.5},
}


def full_matrix() -> AccuracyMatrix:
    matrix = AccuracyMatrix(("a", "b", "c"))
    for step, row in ROWS.items():
        matrix = matrix.record(step, row)
    return matrix


def test_measures_agree_with_numbers_worked_out_by_hand() -> None:
    matrix = full_matrix()
    assert matrix.average(1) == pytest.approx(0.9)
    assert matrix.average(3) == pytest.approx((0.6 + 0.75 + 0.5) / 3)
    assert matrix.backward_transfer() == pytest.approx(((0.6 - 0.9) + (0.75 - 0.7)) / 2)
    assert matrix.forgetting() == pytest.approx(((0.9 - 0.6) + 0.0) / 2)
    assert matrix.share_of_own({"a": 1.0, "b": 0.75, "c": 1.0}) == pytest.approx((0.6 + 1.0 + 0.5) / 3)


@given(st.integers(2, 7), st.randoms(use_true_random=False))
def test_backward_transfer_is_the_printed_formula(count: int, random: Random) -> None:
    tasks = tuple(f"task {i}" for i in range(count))
    matrix = AccuracyMatrix(tasks)
    table = [[random.random() for _ in range(row + 1)] for row in range(count)]
    for row, values in enumerate(table):
        matrix = matrix.record(row + 1, dict(zip(tasks, values, strict=False)))
    expected = sum(table[-1][i] - table[i][i] for i in range(count - 1)) / (count - 1)
    assert matrix.backward_transfer() == pytest.approx(expected)
    forgetting, transfer = matrix.forgetting(), matrix.backward_transfer()
    assert forgetting is not None
    assert transfer is not None
    assert forgetting >= -1e-12
    assert forgetting >= -transfer - 1e-12


def test_record_leaves_the_matrix_it_is_called_on_alone() -> None:
    empty = AccuracyMatrix(("a",))
    assert empty.record(1, {"a": 0.5}).value(1, "a") == 0.5
    assert empty.rows == {}


def test_a_stream_of_one_has_no_backward_transfer() -> None:
    matrix = AccuracyMatrix(("a",)).record(1, {"a": 0.5})
    assert matrix.backward_transfer() is None
    assert matrix.forgetting() is None
    assert matrix.average(1) == 0.5


def test_a_missing_score_gives_no_number_rather_than_a_wrong_one() -> None:
    matrix = AccuracyMatrix(("a", "b")).record(2, {"a": 0.5})
    assert matrix.average(2) is None
    assert matrix.backward_transfer() is None
    assert "-" in matrix.to_text()


def test_two_tasks_may_share_a_step() -> None:
    matrix = AccuracyMatrix(("a", "b", "c"), (1, 1, 2))
    matrix = matrix.record(1, {"a": 0.5, "b": 0.7}).record(2, {"a": 0.4, "b": 0.9, "c": 0.1})
    assert matrix.seen(1) == ("a", "b")
    assert matrix.backward_transfer() == pytest.approx((-0.1 + 0.2) / 2)


def test_unknown_tasks_doubled_tasks_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="no task named 'z'"):
        AccuracyMatrix(("a",)).record(1, {"z": 0.5})
    with pytest.raises(ValueError, match="must differ"):
        AccuracyMatrix(("a", "a"))
    with pytest.raises(ValueError, match="nan"):
        AccuracyMatrix(("a",)).record(1, {"a": float("nan")})
    with pytest.raises(ValueError, match="first steps"):
        AccuracyMatrix(("a", "b"), (1,))


def test_json_round_trip() -> None:
    matrix = full_matrix()
    assert AccuracyMatrix.from_dict(json.loads(json.dumps(matrix.to_dict()))) == matrix


def test_text_shows_values_and_definitions() -> None:
    lines = full_matrix().to_text().splitlines()
    assert lines[0].split() == ["step", "a", "b", "c", "average"]
    assert lines[2].split() == ["2", "80.0", "70.0", "-", "75.0"]
    text = "\n".join(lines)
    assert AVERAGE_ACCURACY_DEFINITION in text
    assert BACKWARD_TRANSFER_DEFINITION in text
    assert "-12.5" in text
    assert len({len(line) for line in lines[:4]}) == 1


def test_text_with_base_model_and_own_checkpoints() -> None:
    lines = full_matrix().to_text({"a": 0.5, "b": 0.25, "c": 0.75}, {"a": 1.0}, defined=False).splitlines()
    assert lines[1].split() == ["base", "50.0", "25.0", "75.0", "50.0"]
    assert [line.split()[0] for line in lines[2:6]] == ["1", "2", "3", "own"]
    assert lines[5].split() == ["own", "100.0", "-", "-", "-"]
    assert len({len(line) for line in lines[:6]}) == 1
    assert "=" not in "".join(lines)


@pytest.mark.parametrize(
    ("value", "sign", "text"), [(0.755, "", "75.5"), (-0.0001, "", "0.0"), (-0.0001, "+", "+0.0"), (None, "", "-")]
)
def test_percent(value: float | None, sign: Literal["", "+"], text: str) -> None:
    assert percent(value, sign) == text
