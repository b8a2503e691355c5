"""Projection for matrices that are much wider than high, with most of the work on the short side.

With A A^T = Q S^2 Q^T, the right singular vectors are v_i = A^T u_i / s_i. So the part to remove from T is Z A with

    Z = Q [diag(K_ii / s_i^2) + offdiag_r(K_ij / s_j^2)] Q^T,   K = Q^T (T A^T) Q.

This takes three products with the long side instead of four, and no other large matrix but the result. For small
directions the Gram matrix has lost its digits: they are repaired as in `hubmerge.linalg.directions` and removed apart.
"""

from __future__ import annotations

from hubmerge.linalg.directions import NULL_CUT, Directions, first_small_index, mixing_coefficients
from hubmerge.linalg.rank import RankRule, protected_rank
from hubmerge.support.lazy import torch

WIDE = 2
"""Ratio of width to height from which this form saves time."""

SMALL_SHARE = 0.25
"""Share of small directions up to which this form saves time."""


def project_wide(
    matrix: torch.Tensor,
    vector: torch.Tensor,
    eigenvalues: torch.Tensor,
    left: torch.Tensor,
    alpha: float,
    rule: RankRule,
) -> tuple[torch.Tensor, int, float] | None:
    """Remove the diagonal and the leading block from a task vector.

    Args:
        matrix: the accumulated delta, (m, n) float64.
        vector: the task vector, (m, n) float64.
        eigenvalues: (m,) float64, from `gram_eigenpairs`.
        left: (m, m) float64, from `gram_eigenpairs`; may be overwritten.
        alpha: the share of the sum of singular values to protect.
        rule: the rule of `protected_rank`.

    Returns:
        What is kept, (m, n) float64; the rank; the sum of squares of what was removed. None if the matrix is not
        suitable; then nothing is changed.
    """
    rows, columns = matrix.shape
    values = eigenvalues.clamp(min=0.0).sqrt()
    head = first_small_index(values) if columns >= WIDE * rows else 0
    if rows - head > SMALL_SHARE * rows or protected_rank(values, alpha, rule) >= head:
        return None
    small = _small_directions(matrix, left, values, head) if head < rows else None
    head_left, head_values = left[:, :head], values[:head]
    rank = protected_rank(head_values if small is None else torch.cat([head_values, small.values]), alpha, rule)
    kept, removed = _remove_leading(matrix, vector, head_left, head_values, eigenvalues[:head], rank)
    if small is not None:
        entries = torch.linalg.vecdot(small.left.T @ vector, small.right)
        removed += float(torch.sum(entries**2))
        kept.addmm_(small.left * entries, small.right, alpha=-1.0)
    return kept, rank, removed


def _remove_leading(
    matrix: torch.Tensor,
    vector: torch.Tensor,
    left: torch.Tensor,
    values: torch.Tensor,
    squares: torch.Tensor,
    rank: int,
) -> tuple[torch.Tensor, float]:
    """Return `vector` without the leading directions' diagonal and r x r block, and the sum of squares removed."""
    coefficients = (vector @ matrix.T) @ left
    diagonal = torch.linalg.vecdot(left, coefficients, dim=0)
    block = left[:, :rank].T @ coefficients[:, :rank]
    block.fill_diagonal_(0.0)
    removed = float(torch.sum((block / values[:rank]) ** 2)) + float(torch.sum((diagonal / values) ** 2))
    weighted = torch.mul(left, diagonal / squares, out=coefficients)
    weighted[:, :rank].addmm_(left[:, :rank], block / squares[:rank])
    # clone() keeps the memory layout of the vector, which is a transposed view if the tensor is higher than wide.
    return vector.clone().addmm_(weighted @ left.T, matrix, alpha=-1.0), removed


def _small_directions(matrix: torch.Tensor, left: torch.Tensor, values: torch.Tensor, head: int) -> Directions:
    """Return the non-null directions from index `head` on; their mixing into the leading ones of `left` is undone."""
    leading, small_left = left[:, :head], left[:, head:]
    small_rows = small_left.T @ matrix
    mixing = mixing_coefficients(leading.T @ (matrix @ small_rows.T), values, head)
    new_small_left = small_left - leading @ mixing
    leading.addmm_(small_left, mixing.T)
    rotation, lengths, right = torch.linalg.svd(new_small_left.T @ matrix, full_matrices=False)
    kept = int((lengths > NULL_CUT * values[0]).sum())
    return Directions((new_small_left @ rotation)[:, :kept], right[:kept], lengths[:kept])
