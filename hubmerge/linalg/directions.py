"""Singular directions of a wide float64 matrix from its Gram matrix, as exact as a full SVD.

The eigenvectors of A A^T give the left singular vectors in about a third of the time of an SVD, but
squaring loses the small directions: vectors of s_i and s_j mix by eps s_1^2 / |s_i^2 - s_j^2| where an SVD
mixes them by eps s_1 / |s_i - s_j|. Hence three repairs, all cheap because few directions are small:
singular values are the lengths of the rows of Q^T A, not roots of eigenvalues; what the leading and the small
directions mixed is undone to first order; and the small directions among themselves get an SVD of their own.
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
"""Directions below SMALL * s_1 are worked out by an SVD of their own."""

GRAM_BLOCK = 192
"""Rows of the Gram matrix that are computed at a time: smaller blocks save more and run slower."""

Eigenpairs: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
"""Eigenvalues, (m,), descending, and the eigenvectors as columns, (m, m)."""

_EPSILON = sys.float_info.epsilon


@dataclass(frozen=True)
class Directions:
    """The non-null singular directions of an (m, n) matrix with m <= n, or the leading ones of them.

    `left` is (m, k), orthonormal columns u_i; `right` is (k, n), rows v_i; `values` is (k,), descending.
    """

    left: torch.Tensor
    right: torch.Tensor
    values: torch.Tensor


def singular_directions(matrix: torch.Tensor, left: torch.Tensor | None = None) -> Directions:
    """All non-null singular directions of an (m, n) float64 matrix, m <= n, of ordinary magnitude.

    `left` are the vectors that `gram_eigenpairs` gives, if they are there already; they are changed.
    """
    left = gram_eigenpairs(matrix)[1] if left is None else left
    rows = left.T @ matrix
    values = torch.linalg.vector_norm(rows, dim=1)
    head = where_to_split(values)
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
    """The directions that `protected_rank` protects, without the cost of the others.

    Falls back on all directions where the Gram matrix alone cannot tell the rank or the vectors exactly. `eigenpairs`
    are what `gram_eigenpairs` gives, if they are there already.
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


def truncated_directions(
    matrix: torch.Tensor, vector: torch.Tensor, share: float, eigenpairs: Eigenpairs | None = None
) -> tuple[Directions, torch.Tensor, float]:
    """The leading directions whose values make up `share` of all, all values, and what `vector` has along the rest.

    The last is the sum of squares of u_i^T vector v_i over the non-null directions that are left out: exact but for
    the rounding of the Gram matrix. `eigenpairs` are what `gram_eigenpairs` gives, if they are there already.
    """
    eigenvalues, vectors = gram_eigenpairs(matrix) if eigenpairs is None else eigenpairs
    values = eigenvalues.clamp(min=0.0).sqrt()
    noise = (len(values) * _EPSILON) ** 0.5
    values = values[: int((values > max(noise, NULL_CUT) * values[0]).sum())]
    count = protected_rank(values, share)
    left = vectors[:, :count].contiguous()
    right = left.T @ matrix
    right /= torch.linalg.vector_norm(right, dim=1)[:, None]
    rest = vectors[:, count : len(values)]
    entries = torch.sum((rest.T @ (vector @ matrix.T)).T * rest, dim=0) / values[count:]
    return Directions(left, right, values[:count]), values, float(torch.sum(entries**2))


def gram_eigenpairs(matrix: torch.Tensor) -> Eigenpairs:
    """The eigenpairs of A A^T."""
    negated, vectors = torch.linalg.eigh(negative_gram(matrix))
    return -negated, vectors


def gram_eigenpairs_together(matrices: Sequence[torch.Tensor]) -> list[Eigenpairs]:
    """`gram_eigenpairs` of several matrices with as many rows, in one call: what a GPU needs to be kept busy.

    Raises LinAlgError if one of them has none.
    """
    negated, vectors = torch.linalg.eigh(torch.stack([negative_gram(matrix) for matrix in matrices]))
    return list(zip((-negated).unbind(), vectors.unbind(), strict=True))


def negative_gram(matrix: torch.Tensor) -> torch.Tensor:
    """The lower triangle of -A A^T, zeros (and some more of it) above: all that `eigh` reads.

    Its eigenvalues ascend, so those of A A^T descend and nothing has to be turned around. Half of the product is
    saved, less what the blocks along the diagonal have too much.
    """
    rows = matrix.shape[0]
    gram = matrix.new_zeros(rows, rows)
    for begin in range(0, rows, GRAM_BLOCK):
        end = min(begin + GRAM_BLOCK, rows)
        gram[begin:end, :end].addmm_(matrix[begin:end], matrix[:end].T, beta=0.0, alpha=-1.0)
    return gram


def where_to_split(values: torch.Tensor) -> int:
    """Index of the first small direction: at the widest relative gap near SMALL * s_1, where little has mixed."""
    lengths = values.tolist()
    threshold = SMALL * lengths[0]
    if min(lengths) > threshold:
        return len(lengths)
    first = max(1, sum(length > 3.0 * threshold for length in lengths))
    last = max(first, sum(length > threshold / 3.0 for length in lengths))
    candidates = range(first, min(last, len(lengths) - 1) + 1)
    return min(candidates, key=lambda index: lengths[index] / lengths[index - 1], default=len(lengths))


def mixed(products: torch.Tensor, values: torch.Tensor, head: int) -> torch.Tensor:
    """How much of each leading direction is in each small one, (head, k - head); `products` are u_i^T A A^T u_j."""
    gaps = values[:head, None] ** 2 - values[None, head:] ** 2
    mixing = products / gaps.clamp(min=1e-300)
    # Values that agree to a dozen digits have no vectors of their own: any mixture of them is as good.
    return torch.where(mixing.abs() < 1e-3, mixing, 0.0)


def _repair_small(
    left: torch.Tensor, rows: torch.Tensor, values: torch.Tensor, head: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Left vectors and rows of Q^T A with the small directions, from index `head` on, made exact."""
    small_rows, small_left = rows[head:], left[:, head:]
    if float(torch.linalg.vector_norm(small_rows)) <= NULL_CUT * float(values[0]):
        return left[:, :head], rows[:head]
    mixing = mixed(rows[:head] @ small_rows.T, values, head)
    new_small_left = small_left - left[:, :head] @ mixing
    new_small_rows = small_rows - mixing.T @ rows[:head]
    left[:, :head].addmm_(small_left, mixing.T)
    rows[:head].addmm_(mixing, small_rows)
    turn, lengths, small_right = torch.linalg.svd(new_small_rows, full_matrices=False)
    left[:, head:] = new_small_left @ turn
    rows[head:] = lengths[:, None] * small_right
    return left, rows
