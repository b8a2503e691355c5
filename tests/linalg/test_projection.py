"""Tests of the projection: agreement with the literal oracle, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hubmerge.linalg import (
    Projection,
    RankRule,
    cosine,
    frobenius_norm,
    leading_directions,
    project,
    protected_rank,
    singular_directions,
    total_norm,
)
from hubmerge.linalg.projection import Diagonal
from tests import oracle
from tests.matrices import AWKWARD, awkward_pairs, decaying, with_values

DIAGONALS: tuple[Diagonal, ...] = ("remove", "keep")


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return awkward_pairs(np.random.default_rng(0))


def fast(
    accumulated: np.ndarray,
    task_vector: np.ndarray,
    alpha: float = 0.5,
    *,
    rank_rule: RankRule = "paper",
    diagonal: Diagonal = "remove",
) -> Projection:
    pair = torch.from_numpy(accumulated), torch.from_numpy(task_vector)
    return project(*pair, alpha, rank_rule=rank_rule, diagonal=diagonal)


def length(matrix: np.ndarray) -> float:
    largest = np.abs(matrix).max()
    return float(np.linalg.norm(matrix / largest) * largest) if largest else 0.0


def distance(first: np.ndarray, second: np.ndarray, unit: float) -> float:
    """Return the norm of the difference in multiples of `unit`, which keeps squares inside float64."""
    return length((first - second) / unit) if unit else length(first - second)


@pytest.mark.parametrize("diagonal", ["remove", "keep"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("kind", AWKWARD)
def test_projection_agrees_with_the_full_svd(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], kind: str, alpha: float, diagonal: Diagonal
) -> None:
    accumulated, task_vector = pairs[kind]
    before = accumulated.copy(), task_vector.copy()
    expected, rank = oracle.project(accumulated, task_vector, alpha, diagonal=diagonal)
    result = fast(accumulated, task_vector, alpha, diagonal=diagonal)
    assert result.rank == rank or (diagonal == "keep" and alpha == 0.0)
    assert result.kept.shape == task_vector.shape
    assert distance(result.kept.numpy(), expected, length(task_vector)) <= 1e-10
    assert np.array_equal(accumulated, before[0])
    assert np.array_equal(task_vector, before[1])
    removed = 1.0 - distance(expected, 0.0 * expected, length(task_vector)) ** 2 if task_vector.any() else 0.0
    assert result.removed_share == pytest.approx(removed, abs=1e-9)


@pytest.mark.parametrize("rule", ["paper", "fusion_bench"])
@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_both_rank_rules_agree_with_the_oracle(rule: RankRule, alpha: float) -> None:
    rng = np.random.default_rng(5)
    accumulated, task_vector = decaying(rng, 30, 50), rng.standard_normal((30, 50))
    for diagonal in DIAGONALS:
        expected, rank = oracle.project(accumulated, task_vector, alpha, rule=rule, diagonal=diagonal)
        result = fast(accumulated, task_vector, alpha, rank_rule=rule, diagonal=diagonal)
        assert result.rank == rank
        assert distance(result.kept.numpy(), expected, length(task_vector)) <= 1e-12


def test_rank_rules_on_a_computed_example() -> None:
    values = torch.tensor([5.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    by_alpha = {0.0: 0, 0.4: 1, 0.5: 1, 0.51: 2, 0.8: 2, 0.85: 3, 0.9: 3, 1.0: 4}
    assert {alpha: protected_rank(values, alpha) for alpha in by_alpha} == by_alpha
    theirs = {0.0: 0, 0.4: 0, 0.5: 1, 0.51: 1, 0.8: 2, 0.85: 2, 0.9: 3, 1.0: 0}
    assert {alpha: protected_rank(values, alpha, "fusion_bench") for alpha in theirs} == theirs
    assert protected_rank(values[:0], 0.5) == 0


def test_rank_does_not_depend_on_the_last_digit() -> None:
    equal = torch.full((10,), 0.1, dtype=torch.float64)
    for digit in (1.0 - 2e-16, 1.0, 1.0 + 2e-16):
        assert protected_rank(equal * digit, 0.3) == 3
        assert protected_rank(equal * digit, 0.3, "fusion_bench") == 3


@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e-9, 1e-7])
def test_a_cluster_is_as_exact_as_its_own_sensitivity_allows(spread: float) -> None:
    # One rounding of the input rotates the singular vectors of a cluster: no algorithm can be more exact.
    rng = np.random.default_rng(7)
    accumulated = with_values(rng, 32, 48, 1.0 + spread * np.arange(32)[::-1])
    task_vector = rng.standard_normal((32, 48))
    expected, _ = oracle.project(accumulated, task_vector, 0.52)
    moved = accumulated * (1.0 + 2e-16 * rng.standard_normal(accumulated.shape))
    sensitivity = length(oracle.project(moved, task_vector, 0.52)[0] - expected)
    result = fast(accumulated, task_vector, 0.52)
    assert length(result.kept.numpy() - expected) <= 1e-10 * length(task_vector) + 10.0 * sensitivity
    assert abs(np.sum(result.kept.numpy() * accumulated)) <= 1e-11 * length(task_vector) * length(accumulated)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    rank=st.integers(0, 24),
    decades=st.floats(0.5, 3.0),
    exponent=st.integers(-40, 40),
    alpha=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_properties(rows: int, columns: int, rank: int, decades: float, exponent: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = min(rows, columns)
    values = 10.0 ** (-decades * np.arange(count) / count) * (np.arange(count) < rank) * 10.0**exponent
    accumulated, task_vector = with_values(rng, rows, columns, values), rng.standard_normal((rows, columns))
    result = fast(accumulated, task_vector, alpha)
    kept = result.kept.numpy()
    bound = 1e-10 * length(task_vector)
    # Nothing remains along the accumulated delta, nor inside its leading block.
    assert abs(np.sum(kept * accumulated)) <= bound * length(accumulated)
    if accumulated.any():
        u, _, vh = np.linalg.svd(accumulated)
        assert np.abs(u[:, : result.rank].T @ kept @ vh[: result.rank].T).max(initial=0.0) <= bound
    # Energy is only removed.
    assert length(kept) <= length(task_vector) * (1 + 1e-12)
    assert 0.0 <= result.removed_share <= 1.0
    # The scale and the sign of the accumulated delta do not matter.
    for factor in (-1.0, 3.0, 1e-6):
        assert length(fast(factor * accumulated, task_vector, alpha).kept.numpy() - kept) <= bound
    # Idempotent: a second projection removes nothing.
    assert length(fast(accumulated, kept, alpha).kept.numpy() - kept) <= bound
    # Transposing both transposes the result.
    turned = fast(accumulated.T.copy(), task_vector.T.copy(), alpha).kept.numpy()
    assert length(turned.T - kept) <= bound


def test_null_space_keeps_its_diagonal() -> None:
    # The basis of the null space is arbitrary, so its diagonal entries would be arbitrary too.
    rng = np.random.default_rng(3)
    left, right = np.linalg.qr(rng.standard_normal((20, 20)))[0], np.linalg.qr(rng.standard_normal((30, 30)))[0]
    accumulated = left[:, :4] @ np.diag([4.0, 3.0, 2.0, 1.0]) @ right[:, :4].T
    inside_null = left[:, 4:] @ rng.standard_normal((16, 26)) @ right[:, 4:].T
    result = fast(accumulated, inside_null)
    assert length(result.kept.numpy() - inside_null) <= 1e-13 * length(inside_null)
    assert result.removed_share <= 1e-26


def test_directions_agree_with_the_svd() -> None:
    rng = np.random.default_rng(11)
    matrix = decaying(rng, 40, 70, 4.0)
    directions = singular_directions(torch.from_numpy(matrix))
    values = np.linalg.svd(matrix, compute_uv=False)
    assert np.allclose(directions.values.numpy(), values, rtol=1e-10, atol=0.0)
    identity = np.eye(40)
    assert np.allclose(directions.left.numpy().T @ directions.left.numpy(), identity, atol=1e-11)
    assert np.allclose(directions.right.numpy() @ directions.right.numpy().T, identity, atol=1e-11)
    leading = leading_directions(torch.from_numpy(matrix), 0.5)
    rank = oracle.rank_of(values, 0.5)
    assert leading.left.shape == (40, rank)
    assert np.allclose(leading.values.numpy(), values[:rank], rtol=1e-12)


def test_norms_do_not_overflow_or_depend_on_order() -> None:
    assert frobenius_norm(torch.tensor([[3e200, 4e200]], dtype=torch.float64)) == pytest.approx(5e200, rel=1e-15)
    assert frobenius_norm(torch.tensor([3e-200, 4e-200], dtype=torch.float64)) == pytest.approx(5e-200, rel=1e-15)
    assert frobenius_norm(torch.zeros(0, dtype=torch.float64)) == 0.0
    assert frobenius_norm(torch.zeros(3, dtype=torch.float64)) == 0.0
    norms = list(np.random.default_rng(2).lognormal(0.0, 8.0, 200))
    assert len({total_norm(np.random.default_rng(seed).permutation(norms)) for seed in range(20)}) == 1
    assert total_norm([3e200, 4e200]) == pytest.approx(5e200, rel=1e-15)
    assert total_norm([]) == 0.0
    first = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert cosine(first, 1e200 * first) == pytest.approx(1.0, rel=1e-15)
    assert cosine(first, -1e-200 * first) == pytest.approx(-1.0, rel=1e-15)
    assert cosine(first, torch.tensor([2.0, -1.0], dtype=torch.float64)) == 0.0
    assert cosine(first, 0.0 * first) is None
