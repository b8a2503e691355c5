"""Singular directions of a wide float64 matrix from its Gram matrix, as exact as a full SVD.

The eigenvectors Q of A A^T are the left singular vectors, in about a third of the time of an SVD. But squaring loses
the small directions: the vectors of s_i and s_j mix by eps s_1^2 / |s_i^2 - s_j^2|, in an SVD only by
eps s_1 / |s_i - s_j|. Three repairs restore them, all cheap because few directions are small:

1. Singular values are the lengths of the rows of Q^T A, not roots of eigenvalues.
2. The mixing between leading and small directions is undone to first order.
3. The small directions among themselves are computed by an SVD.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hubmerge.linalg.rank import RankRule, protected_rank, rank_margin
from hubmerge.support.lazy import torch

NULL_CUT = 1e-12
"""Directions with s_i <= NULL_CUT * s_1 count as null space: their singular vectors are rounding noise."""

SMALL = 1e-2
"""Directions below SMALL * s_1 are computed by an SVD of their own."""

GRAM_BLOCK = 192
"""Rows of the Gram matrix in one block: smaller blocks save more work and run slower."""

Eigenpairs: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
"""Eigenvalues, (m,), descending, and the eigenvectors as columns, (m, m)."""

_EPSILON = sys.float_info.epsilon


@dataclass(frozen=True)
class Directions:
    """All non-null singular directions of an (m, n) matrix with m <= n, or the leading ones.

    Attributes:
        left: (m, k) float64, orthonormal columns u_i.
        right: (k, n) float64, orthonormal rows v_i.
        values: (k,) float64, singular values, descending.
    """

    left: torch.Tensor
    right: torch.Tensor
    values: torch.Tensor


def singular_directions(matrix: torch.Tensor, left: torch.Tensor | None = None) -> Directions:
    """Return all non-null singular directions of a matrix.

    Args:
        matrix: (m, n) float64 with m <= n; squares of its elements stay inside float64.
        left: the eigenvectors from `gram_eigenpairs`, (m, m), if known; they are overwritten.
    """
    left = gram_eigenpairs(matrix)[1] if left is None else left
    rows = left.T @ matrix
    values = torch.linalg.vector_norm(rows, dim=1)
    head = first_small_index(values)
    if head < len(values):
        left, rows = _repair_small(left, rows, values, head)
        values = torch.linalg.vector_norm(rows, dim=1)
    kept = int((values > NULL_CUT * values[0]).sum()) if float(values[0]) > 0.0 else 0
    values = values[:kept]
    right = rows[:kept]
    right /= values[:, None]
    return Directions(left[:, :kept], right, values)


def leading_directions(
    matrix: torch.Tensor, alpha: float, rule: RankRule = "paper", eigenpairs: Eigenpairs | None = None
) -> Directions:
    """Return the directions that `protected_rank` protects.

    This costs less than all directions, except where the Gram matrix does not give the rank or the vectors exactly.

    Args:
        matrix: (m, n) float64 with m <= n; squares of its elements stay inside float64.
        alpha: the share of the sum of singular values to protect, from 0 to 1.
        rule: the rule of `protected_rank`.
        eigenpairs: the result of `gram_eigenpairs`, if known.
    """
    eigenvalues, vectors = gram_eigenpairs(matrix) if eigenpairs is None else eigenpairs
    values = eigenvalues.clamp(min=0.0).sqrt()
    largest = float(values[0])
    if largest == 0.0:
        return Directions(vectors[:, :0], matrix[:0], values[:0])
    noise = len(values) * _EPSILON * largest**2
    doubt = torch.minimum(noise / values.clamp(min=1e-300), torch.full_like(values, noise**0.5))
    rank = protected_rank(values, alpha, rule)
    exact = rank_margin(values, alpha) * float(values.sum()) > 2.0 * float(doubt.sum())
    last = float(values[min(rank, len(values) - 1)])
    if not exact or last < SMALL * largest:
        del vectors
        every = singular_directions(matrix)
        rank = protected_rank(every.values, alpha, rule)
        return Directions(every.left[:, :rank], every.right[:rank], every.values[:rank])
    left = vectors[:, :rank].contiguous()
    right = left.T @ matrix
    values = torch.linalg.vector_norm(right, dim=1)
    right /= values[:, None]
    return Directions(left, right, values)


def gram_eigenpairs(matrix: torch.Tensor) -> Eigenpairs:
    """Return the eigenpairs of A A^T for a matrix A, (m, n) float64."""
    negated, vectors = torch.linalg.eigh(negative_gram(matrix))
    return -negated, vectors


def batched_gram_eigenpairs(matrices: Sequence[torch.Tensor]) -> list[Eigenpairs]:
    """Return `gram_eigenpairs` of several matrices in one call, which keeps a GPU busy.

    Args:
        matrices: (m, n_i) float64 with one m.

    Raises:
        LinAlgError: the eigenvalues of a matrix do not converge.
    """
    negated, vectors = torch.linalg.eigh(torch.stack([negative_gram(matrix) for matrix in matrices]))
    return list(zip((-negated).unbind(), vectors.unbind(), strict=True))


def negative_gram(matrix: torch.Tensor) -> torch.Tensor:
    """Return the lower triangle of -A A^T, which is all that `eigh` reads; the rest is zero or arbitrary.

    `eigh` sorts ascending, so the eigenvalues of A A^T come out descending. Only half of the product is computed, and
    the upper halves of the blocks on the diagonal.
    """
    rows = matrix.shape[0]
    gram = matrix.new_zeros(rows, rows)
    for begin in range(0, rows, GRAM_BLOCK):
        end = min(begin + GRAM_BLOCK, rows)
        gram[begin:end, :end].addmm_(matrix[begin:end], matrix[:end].T, beta=0.0, alpha=-1.0)
    return gram


def first_small_index(values: torch.Tensor) -> int:
    """Return the index of the first small direction.

    It is at the widest relative gap near SMALL * s_1, where directions have mixed least.

    Args:
        values: (k,) float64, singular values, descending.
    """
    lengths = values.tolist()
    threshold = SMALL * lengths[0]
    if min(lengths) > threshold:
        return len(lengths)
    first = max(1, sum(length > 3.0 * threshold for length in lengths))
    last = max(first, sum(length > threshold / 3.0 for length in lengths))
    candidates = range(first, min(last, len(lengths) - 1) + 1)
    return min(candidates, key=lambda index: lengths[index] / lengths[index - 1], default=len(lengths))


def mixing_coefficients(products: torch.Tensor, values: torch.Tensor, head: int) -> torch.Tensor:
    """Return the amount of each leading direction in each small one.

    Args:
        products: u_i^T A A^T u_j for leading i and small j, (head, k - head) float64.
        values: (k,) float64, singular values.
        head: the number of leading directions.

    Returns:
        (head, k - head) float64.
    """
    gaps = values[:head, None] ** 2 - values[None, head:] ** 2
    mixing = products / gaps.clamp(min=1e-300)
    # Singular vectors of values that agree to a dozen digits are not unique: any mixture is a solution.
    return torch.where(mixing.abs() < 1e-3, mixing, 0.0)


def _repair_small(
    left: torch.Tensor, rows: torch.Tensor, values: torch.Tensor, head: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the left vectors and the rows of Q^T A with exact small directions, those from index `head` on."""
    small_rows, small_left = rows[head:], left[:, head:]
    if float(torch.linalg.vector_norm(small_rows)) <= NULL_CUT * float(values[0]):
        return left[:, :head], rows[:head]
    mixing = mixing_coefficients(rows[:head] @ small_rows.T, values, head)
    new_small_left = small_left - left[:, :head] @ mixing
    new_small_rows = small_rows - mixing.T @ rows[:head]
    left[:, :head].addmm_(small_left, mixing.T)
    rows[:head].addmm_(mixing, small_rows)
    rotation, lengths, small_right = torch.linalg.svd(new_small_rows, full_matrices=False)
    left[:, head:] = new_small_left @ rotation
    rows[head:] = lengths[:, None] * small_right
    return left, rows
