"""Tests of the float32 projection: exact ranks, small errors, stability over many steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hubmerge.linalg import NULL_CUT, frobenius_norm, project
from hubmerge.linalg.directions import negative_gram
from hubmerge.linalg.float32 import project_float32
from hubmerge.linalg.projection import Precision
from hubmerge.methods.opcm import OpcmParameters
from tests import oracle
from tests.checks import every
from tests.matrices import AWKWARD, awkward_pairs, decaying, with_values

PRECISIONS: tuple[Precision, ...] = ("float64", "float32")


def in_both_precisions(accumulated: np.ndarray, task_vector: np.ndarray, alpha: float = 0.5) -> list[torch.Tensor]:
    pair = torch.from_numpy(accumulated), torch.from_numpy(task_vector)
    results = [project(*pair, alpha, diagonal="keep", precision=precision) for precision in PRECISIONS]
    assert results[0].rank == results[1].rank
    assert results[0].removed_share == pytest.approx(results[1].removed_share, abs=1e-5)
    return [result.kept for result in results]


def in_float32(accumulated: np.ndarray, task_vector: np.ndarray, alpha: float) -> object:
    pair = torch.from_numpy(accumulated), torch.from_numpy(task_vector)
    return project_float32(*pair, (frobenius_norm(pair[0]), frobenius_norm(pair[1])), alpha, "paper")


def relative_distance(first: torch.Tensor, second: torch.Tensor, unit: torch.Tensor) -> float:
    largest = float(unit.abs().max()) or 1.0
    length = float(torch.linalg.vector_norm(unit / largest)) or 1.0
    return float(torch.linalg.vector_norm((first - second) / largest)) / length


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_matrices_are_close_to_float64(kind: str, alpha: float) -> None:
    accumulated, task_vector = awkward_pairs(np.random.default_rng(1))[kind]
    exact, single = in_both_precisions(accumulated, task_vector, alpha)
    assert single.dtype == torch.float64
    assert single.shape == exact.shape
    assert relative_distance(exact, single, torch.from_numpy(task_vector)) <= 1e-4


@pytest.mark.parametrize("shape", [(96, 96), (64, 256), (256, 64), (200, 300)])
def test_float32_is_used_where_it_is_precise_enough(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    accumulated, task_vector = decaying(rng, *shape), rng.standard_normal(shape)
    exact, single = in_both_precisions(accumulated, task_vector)
    expected, rank = oracle.project(accumulated, task_vector, 0.5, diagonal="keep")
    assert project(torch.from_numpy(accumulated), torch.from_numpy(task_vector), 0.5, diagonal="keep").rank == rank
    error = float(np.linalg.norm(single.numpy() - expected) / np.linalg.norm(task_vector))
    assert 1e-9 < error <= 2e-5
    assert not torch.equal(exact, single)


def test_float64_is_used_where_the_rank_is_uncertain() -> None:
    # The two leading values are half of the sum, up to rounding.
    rng = np.random.default_rng(3)
    accumulated, task_vector = (
        with_values(rng, 6, 40, np.r_[3.0, 2.0, 1.6, 1.4, 1.0, 1.0]),
        rng.standard_normal((6, 40)),
    )
    assert in_float32(accumulated, task_vector, 0.5) is None
    assert torch.equal(*in_both_precisions(accumulated, task_vector))
    assert in_float32(accumulated, task_vector, 0.53) is not None


def test_float64_is_used_where_the_block_ends_inside_a_cluster() -> None:
    rng = np.random.default_rng(7)
    accumulated, task_vector = with_values(rng, 16, 40, 1 + 1e-6 * np.arange(16)), rng.standard_normal((16, 40))
    assert in_float32(accumulated, task_vector, 0.53) is None
    assert torch.equal(*in_both_precisions(accumulated, task_vector, 0.53))


def test_float64_is_used_where_the_block_has_small_values() -> None:
    rng = np.random.default_rng(4)
    accumulated, task_vector = decaying(rng, 40, 60, 3.0), rng.standard_normal((40, 60))
    assert in_float32(accumulated, task_vector, 0.999) is None
    assert torch.equal(*in_both_precisions(accumulated, task_vector, 0.999))


def test_errors_are_not_amplified_over_many_steps() -> None:
    rng = np.random.default_rng(5)
    exact = single = torch.zeros(64, 96, dtype=torch.float64)
    errors = []
    for _ in range(24):
        task_vector = torch.from_numpy(decaying(rng, 64, 96))
        exact = exact + project(exact, task_vector, 0.5, diagonal="keep").kept
        single = single + project(single, task_vector, 0.5, diagonal="keep", precision="float32").kept
        errors.append(relative_distance(exact, single, exact))
    assert 0.0 < max(errors) <= 1e-4
    assert errors[-1] <= 10.0 * errors[1] + 1e-6


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(6)
    pair = torch.from_numpy(decaying(rng, 30, 50)), torch.from_numpy(rng.standard_normal((30, 50)))
    before = [tensor.clone() for tensor in pair]
    project(*pair, 0.5, diagonal="keep", precision="float32")
    assert every(torch.equal(old, new) for old, new in zip(before, pair, strict=True))


def test_float32_needs_the_diagonal_kept() -> None:
    assert OpcmParameters.model_validate({"diagonal": "keep", "precision": "float32"}).precision == "float32"
    with pytest.raises(ValidationError, match="diagonal: keep"):
        OpcmParameters.model_validate({"precision": "float32"})


@pytest.mark.parametrize("rows", [1, 191, 192, 193, 500])
def test_lower_triangle_of_the_gram_matrix(rows: int) -> None:
    matrix = torch.from_numpy(np.random.default_rng(rows).standard_normal((rows, rows + 3)))
    assert torch.allclose(negative_gram(matrix).tril(), -(matrix @ matrix.T).tril(), rtol=1e-12, atol=1e-11)
    values = torch.linalg.eigvalsh(negative_gram(matrix)).neg()
    expected = torch.linalg.svdvals(matrix) ** 2
    assert torch.allclose(values, expected, rtol=1e-9, atol=NULL_CUT * float(expected[0]))
