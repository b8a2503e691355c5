"""Answers of merged models: packed, and compared between variants on equal examples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hubmerge.stream.catalog import installed_catalog
from hubmerge.study import load_study, run_study
from hubmerge.study.answers import mean_answers, pack_answers, paired_difference, unpack_answers
from hubmerge.study.results import CellResult, ResultsFile
from hubmerge.study.tables import summary_rows, table_rows
from hubmerge.support.progress import SilentProgress
from tests.checks import every
from tests.study.test_runner import Write


def drawn(seed: int, share: float, size: int) -> np.ndarray:
    answers: np.ndarray = np.random.default_rng(seed).random(size) < share
    return answers


@pytest.mark.parametrize("size", [1, 7, 8, 9, 240])
def test_packed_answers_are_read_back(size: int) -> None:
    right = drawn(0, 0.6, size)
    assert unpack_answers(pack_answers(right)).tolist() == right.tolist()


@pytest.mark.parametrize("text", ["", "3", "9 gA==", "-1 ", "3 no base64", "gA== 3"])
def test_text_that_is_no_answers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not the answers of a task"):
        unpack_answers(text)


def test_a_paired_difference_is_the_mean_over_tasks_with_the_interval_of_the_normal_approximation() -> None:
    one = {"a": drawn(1, 0.8, 1000), "b": drawn(2, 0.7, 200)}
    other = {"a": drawn(3, 0.7, 1000), "b": drawn(4, 0.6, 200)}
    found = paired_difference(one, other)
    assert found is not None
    differences = [one[task].astype(float) - other[task] for task in ("a", "b")]
    assert found.mean == pytest.approx(np.mean([values.mean() for values in differences]))
    error = np.sqrt(sum(values.var() / len(values) for values in differences)) / 2
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert not found.is_noise


def test_pairing_removes_the_variance_that_both_variants_share() -> None:
    hard = drawn(5, 0.5, 400)
    better = hard.copy()
    better[np.flatnonzero(~hard)[:8]] = True  # 2 points on equal examples; unpaired, one standard error is 3.5 points
    found = paired_difference({"task": better}, {"task": hard})
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert not found.is_noise
    assert found.high - found.low < 0.04


def test_a_difference_by_chance_is_noise() -> None:
    found = paired_difference({"task": drawn(6, 0.5, 400)}, {"task": drawn(7, 0.5, 400)})
    assert found is not None
    assert found.is_noise
    assert found.points().count("+") + found.points().count("-") == 3


def test_equal_answers_have_no_difference() -> None:
    right = {"task": drawn(8, 0.5, 50)}
    found = paired_difference(right, right)
    assert found is not None
    assert (found.mean, found.low, found.high, found.is_noise) == (0.0, 0.0, 0.0, True)


@pytest.mark.parametrize("other", [{}, {"b": drawn(1, 0.5, 10)}, {"a": drawn(1, 0.5, 11)}])
def test_answers_to_other_examples_are_not_compared(other: dict[str, np.ndarray]) -> None:
    assert paired_difference({"a": drawn(0, 0.5, 10)}, other) is None


def test_the_mean_over_merges_counts_each_example() -> None:
    merges = [{"a": pack_answers(np.array([True, True, False]))}, {"a": pack_answers(np.array([True, False, False]))}]
    assert mean_answers(merges)["a"].tolist() == [1.0, 0.5, 0.0]
    assert mean_answers([*merges, {"b": "0 "}]) == {}
    assert mean_answers([]) == {}


def test_a_study_keeps_the_answers_of_every_kind_of_method(tmp_path: Path, write_study: Write) -> None:
    methods = [{"method": "opcm"}, {"method": "tsv_m"}, {"method": "iso_c"}]
    path = write_study(methods=methods, orders=2, tasks=[3], score="last")
    results = run_study(load_study(path, installed_catalog()), tmp_path / "out", tmp_path / "cache", SilentProgress())
    for result in results:
        scores = {task: result.accuracies.value(3, task) for task in result.accuracies.tasks}
        assert {task: unpack_answers(text).mean() for task, text in result.answers.items()} == pytest.approx(scores)
    file = ResultsFile(tmp_path / "out" / "results.jsonl")
    assert [file.cells[result.digest].answers for result in results] == [result.answers for result in results]
    header, rows = table_rows(summary_rows(results, next(iter(file.references.values()))))
    assert header[-1] == "to the first"
    [first, *others] = [row for row in rows if row[2]]
    assert first[-1] == ""
    assert every(" to " in row[-1] for row in others)


def test_results_of_version_0_1_0_have_no_answers_and_are_read(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "docs" / "study" / "sums-1.jsonl"
    cells: list[CellResult] = [*ResultsFile(shipped).cells.values()]
    assert cells
    assert not any(cell.answers for cell in cells)
    _, rows = table_rows(summary_rows(cells, next(iter(ResultsFile(shipped).references.values()))))
    assert {row[-1] for row in rows} == {""}
