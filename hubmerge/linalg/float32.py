"""Projection in float32 that keeps the diagonal: three to four times as fast, with an error of about 1e-5.

Removing the leading block needs the span of the leading directions, not each single one. The span is stable if it ends
at a large singular value and at a gap, and if rounding cannot change its rank. Usually both hold; otherwise the caller
falls back to float64.
"""

from __future__ import annotations

import math

from hubmerge.linalg.directions import negative_gram
from hubmerge.linalg.rank import RankRule, protected_rank, rank_margin
from hubmerge.support.lazy import torch

SMALLEST_VALUE = 0.03
"""Lowest singular value in the block, relative to s_1: squares of smaller ones vanish in the rounding of s_1^2."""

ERROR_SHARE = 0.25
"""Share of the sum of all rounding bounds that must not reach the margin of the rank; measured errors are a tenth."""

MAX_ANGLE = 1e-3
"""Largest angle in radians by which rounding may rotate the last direction inside the block towards the next one."""

BLOCK_ROWS = 64
"""Rows subtracted at a time: a block stays in the CPU cache while it is converted between the two precisions."""

_EPSILON = 2.0**-23  # of float32


def project_float32(
    accumulated: torch.Tensor, task_vector: torch.Tensor, lengths: tuple[float, float], alpha: float, rule: RankRule
) -> tuple[torch.Tensor, int, float] | None:
    """Remove the leading block from a task vector, with arithmetic in float32.

    Args:
        accumulated: the accumulated delta, (m, n) float64 with m <= n, not zero.
        task_vector: (m, n) float64.
        lengths: the Frobenius norms of both.
        alpha: the share of the sum of singular values to protect.
        rule: the rule of `protected_rank`.

    Returns:
        What is kept, (m, n) float64; the rank; the share of energy removed. None if float32 is not precise enough.
    """
    length = lengths[1]
    if length == 0.0:
        return None
    unit, matrix_unit = _unit(length), _unit(lengths[0])
    matrix = _to_float32(accumulated, matrix_unit)
    left = _leading_left(matrix, alpha, rule)
    if left is None:
        return None
    rank = left.shape[1]
    right = left.T @ matrix
    del matrix
    right /= torch.linalg.vector_norm(right, dim=1)[:, None]
    block = (left.T @ _to_float32(task_vector, unit)) @ right.T
    share = float(torch.sum(block.to(torch.float64) ** 2)) / (length / unit) ** 2
    coefficients = (block @ right).mul_(-1.0)
    kept = torch.empty_like(task_vector)
    target, source, first, second = kept, task_vector, left, coefficients
    if not source.is_contiguous():
        # A transposed view of a matrix that is higher than wide: its own rows are contiguous.
        target, source, first, second = kept.T, task_vector.T, coefficients.T, left.T
    for begin in range(0, len(source), BLOCK_ROWS):
        rows = slice(begin, begin + BLOCK_ROWS)
        torch.add(source[rows], (first[rows] @ second).to(torch.float64), alpha=unit, out=target[rows])
    return kept, rank, min(1.0, share)


def _unit(length: float) -> float:
    """Return the power of two that a tensor of this length is divided by before rounding; 1 if none is needed."""
    return 1.0 if 1e-6 < length < 1e6 else math.ldexp(1.0, max(math.frexp(length)[1], -1000))


def _to_float32(tensor: torch.Tensor, unit: float) -> torch.Tensor:
    return (tensor if unit == 1.0 else tensor / unit).to(torch.float32)


def _leading_left(matrix: torch.Tensor, alpha: float, rule: RankRule) -> torch.Tensor | None:
    """Return the protected left directions, (m, r); None if float32 is not precise enough."""
    negated, vectors = torch.linalg.eigh(negative_gram(matrix))
    values = (-negated).clamp(min=0.0).to(torch.float64).sqrt()
    largest = float(values[0])
    noise = _EPSILON * largest**2
    doubt = torch.minimum(noise / values.clamp(min=1e-300), torch.full_like(values, math.sqrt(noise)))
    rank = protected_rank(values, alpha, rule)
    certain = rank_margin(values, alpha) * float(values.sum()) > ERROR_SHARE * float(doubt.sum())
    if not certain or rank == 0 or float(values[rank - 1]) < SMALLEST_VALUE * largest:
        return None
    if rank < len(values) and float(values[rank - 1] ** 2 - values[rank] ** 2) * MAX_ANGLE < noise:
        return None
    return vectors[:, :rank].contiguous()
