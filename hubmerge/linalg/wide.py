"""The projection of a matrix that is much wider than high, with most of the work on the short side.

With A A^T = Q S^2 Q^T the right singular vectors are v_i = A^T u_i / s_i, so what is taken out of T is Z A with
    Z = Q [diag(K_ii / s_i^2) + offdiag_r(K_ij / s_j^2)] Q^T,   K = Q^T (T A^T) Q:
three products with the long side instead of four, and no other matrix of that size but the result. Small directions,
for which the Gram matrix has lost its digits, are made exact as in `hubmerge.linalg.directions` and taken out apart.
"""

from __future__ import annotations

from hubmerge.linalg.directions import NULL_CUT, Directions, mixed, where_to_split
from hubmerge.linalg.rank import RankRule, protected_rank
from hubmerge.support.lazy import torch

WIDE = 2
"""How many times as wide as high a matrix has to be for this to save time."""

SMALL_SHARE = 0.25
"""With more small directions than this share of all, working them out costs what is saved."""


def project_wide(
    matrix: torch.Tensor,
    vector: torch.Tensor,
    eigenvalues: torch.Tensor,
    left: torch.Tensor,
    alpha: float,
    rule: RankRule,
) -> tuple[torch.Tensor, int, float] | None:
    """`vector` without its diagonal and leading block, the rank, and the sum of squares of what was taken out.

    `matrix` and `vector` are (m, n) float64; `eigenvalues` (m,) and `left` (m, m) come from `gram_eigenpairs`, and
    `left` may be changed. None, and nothing changed, if the matrix is not of the kind that this is for.
    """
    rows, columns = matrix.shape
    values = eigenvalues.clamp(min=0.0).sqrt()
    head = where_to_split(values) if columns >= WIDE * rows else 0
    if rows - head > SMALL_SHARE * rows or protected_rank(values, alpha, rule) >= head:
        return None
    small = _small_directions(matrix, left, values, head) if head < rows else None
    head_left, head_values, squares = left[:, :head], values[:head], eigenvalues[:head]
    rank = protected_rank(head_values if small is None else torch.cat([head_values, small.values]), alpha, rule)
    turned = (vector @ matrix.T) @ head_left
    diagonal = torch.linalg.vecdot(head_left, turned, dim=0)
    block = head_left[:, :rank].T @ turned[:, :rank]
    block.fill_diagonal_(0.0)
    removed = float(torch.sum((block / head_values[:rank]) ** 2)) + float(torch.sum((diagonal / head_values) ** 2))
    weighted = torch.mul(head_left, diagonal / squares, out=turned)
    weighted[:, :rank].addmm_(head_left[:, :rank], block / squares[:rank])
    # Laid out as the vector is: one that stands upright is seen lying here, and to turn its copy takes long.
    kept = vector.clone().addmm_(weighted @ head_left.T, matrix, alpha=-1.0)
    if small is not None:
        entries = torch.linalg.vecdot(small.left.T @ vector, small.right)
        removed += float(torch.sum(entries**2))
        kept.addmm_(small.left * entries, small.right, alpha=-1.0)
    return kept, rank, removed


def _small_directions(matrix: torch.Tensor, left: torch.Tensor, values: torch.Tensor, head: int) -> Directions:
    """The non-null directions from index `head` on; what the leading ones of `left` have of them is undone."""
    leading, small_left = left[:, :head], left[:, head:]
    small_rows = small_left.T @ matrix
    mixing = mixed(leading.T @ (matrix @ small_rows.T), values, head)
    new_small_left = small_left - leading @ mixing
    leading.addmm_(small_left, mixing.T)
    turn, lengths, right = torch.linalg.svd(new_small_left.T @ matrix, full_matrices=False)
    kept = int((lengths > NULL_CUT * values[0]).sum())
    return Directions((new_small_left @ turn)[:, :kept], right[:kept], lengths[:kept])
