"""Tests of the projection of wide matrices: agreement with the literal oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hubmerge.linalg import project
from hubmerge.linalg.directions import SMALL, gram_eigenpairs
from hubmerge.linalg.wide import WIDE, project_wide
from tests import oracle
from tests.matrices import decaying, with_values


def wide(accumulated: np.ndarray, task_vector: np.ndarray, alpha: float) -> tuple[torch.Tensor, int, float] | None:
    matrix, vector = torch.from_numpy(accumulated), torch.from_numpy(task_vector)
    return project_wide(matrix, vector, *gram_eigenpairs(matrix), alpha, "paper")


@pytest.mark.parametrize("smallest", [0.5, 0.02, 1e-3, 1e-5])
@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_wide_projection_agrees_with_the_full_svd(alpha: float, smallest: float) -> None:
    rng = np.random.default_rng(1)
    values = np.r_[np.geomspace(1.0, 0.05, 36), np.geomspace(min(0.05, 10 * smallest), smallest, 4)]
    accumulated, task_vector = with_values(rng, 40, 130, np.sort(values)[::-1]), rng.standard_normal((40, 130))
    before = accumulated.copy(), task_vector.copy()
    found = wide(accumulated, task_vector, alpha)
    assert found is not None
    kept, rank, removed = found
    expected, expected_rank = oracle.project(accumulated, task_vector, alpha)
    length = np.linalg.norm(task_vector)
    assert rank == expected_rank
    assert np.linalg.norm(kept.numpy() - expected) <= 1e-10 * length
    assert removed == pytest.approx(length**2 - np.linalg.norm(expected) ** 2, rel=1e-9)
    assert np.array_equal(accumulated, before[0])
    assert np.array_equal(task_vector, before[1])


def test_null_directions_keep_their_entries() -> None:
    rng = np.random.default_rng(2)
    values = np.r_[np.geomspace(1.0, 0.3, 20), np.zeros(4)]
    accumulated, task_vector = with_values(rng, 24, 60, values), rng.standard_normal((24, 60))
    found = wide(accumulated, task_vector, 0.5)
    assert found is not None
    expected, _ = oracle.project(accumulated, task_vector, 0.5)
    assert np.linalg.norm(found[0].numpy() - expected) <= 1e-10 * np.linalg.norm(task_vector)


@pytest.mark.parametrize(
    ("shape", "decades", "alpha"),
    [((40, 40 * WIDE - 1), 1.0, 0.5), ((30, 90), 4.0, 0.5), ((30, 90), 2.5, 0.999)],
    ids=["not wide", "mostly small directions", "small directions in the block"],
)
def test_unsuitable_matrices_use_the_general_form(shape: tuple[int, int], decades: float, alpha: float) -> None:
    rng = np.random.default_rng(3)
    accumulated, task_vector = decaying(rng, *shape, decades), rng.standard_normal(shape)
    assert wide(accumulated, task_vector, alpha) is None
    result = project(torch.from_numpy(accumulated), torch.from_numpy(task_vector), alpha)
    expected, rank = oracle.project(accumulated, task_vector, alpha)
    assert result.rank == rank
    assert np.linalg.norm(result.kept.numpy() - expected) <= 1e-10 * np.linalg.norm(task_vector)


def test_small_directions_are_those_below_the_threshold() -> None:
    rng = np.random.default_rng(4)
    accumulated = with_values(rng, 20, 60, np.r_[np.geomspace(1.0, 10.0 * SMALL, 19), 0.01 * SMALL])
    task_vector = rng.standard_normal((20, 60))
    found = wide(accumulated, task_vector, 0.5)
    assert found is not None
    # Nothing of the task vector remains along the one small direction.
    u, _, vh = np.linalg.svd(accumulated, full_matrices=False)
    assert abs(u[:, -1] @ found[0].numpy() @ vh[-1]) <= 1e-9 * abs(u[:, -1] @ task_vector @ vh[-1])
