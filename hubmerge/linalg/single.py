"""The projection that keeps the diagonal, in float32: three to four times as fast, and good to about 1e-5.

Taking out the leading block needs the span of the leading directions, not each of them. A span is stable where it
ends at a large singular value and a gap; its size, a whole number, has to be told for certain. Both is the rule, and
whoever calls has float64 for the exceptions.
"""

from __future__ import annotations

import math

from hubmerge.linalg.directions import negative_gram
from hubmerge.linalg.rank import RankRule, protected_rank, rank_margin
from hubmerge.support.lazy import torch

LEAST = 0.03
"""The block may reach down to LEAST * s_1: squares of smaller values drown in the rounding of s_1^2."""

CAUTION = 0.25
"""Of the sum of all rounding errors at their largest. They have either sign: measured shares are off by a tenth."""

TURN = 1e-3
"""Rounding may turn the last direction of the block towards the first outside by this angle at most, in radians."""

ROWS_AT_ONCE = 64
"""What is taken out is subtracted in blocks that stay in the cache between one precision and the other."""

_EPSILON = 2.0**-23  # of float32


def project_in_single(
    accumulated: torch.Tensor, task_vector: torch.Tensor, lengths: tuple[float, float], alpha: float, rule: RankRule
) -> tuple[torch.Tensor, int, float] | None:
    """`task_vector` without its leading block, its rank and the share of energy removed; None if float32 cannot tell.

    Both are (m, n) float64 with m <= n, of these `lengths`, the first not zero; neither is changed. So is what is
    returned.
    """
    length = lengths[1]
    if length == 0.0:
        return None
    unit, matrix_unit = _unit(length), _unit(lengths[0])
    matrix = _in_single(accumulated, matrix_unit)
    left = _leading_left(matrix, alpha, rule)
    if left is None:
        return None
    rank = left.shape[1]
    right = left.T @ matrix
    del matrix
    right /= torch.linalg.vector_norm(right, dim=1)[:, None]
    block = (left.T @ _in_single(task_vector, unit)) @ right.T
    share = float(torch.sum(block.to(torch.float64) ** 2)) / (length / unit) ** 2
    coefficients = (block @ right).mul_(-1.0)
    kept = torch.empty_like(task_vector)
    target, source, first, second = kept, task_vector, left, coefficients
    if not source.is_contiguous():
        # An upright matrix that is seen lying: blocks of its own rows are what lies together.
        target, source, first, second = kept.T, task_vector.T, coefficients.T, left.T
    for begin in range(0, len(source), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        torch.add(source[rows], (first[rows] @ second).to(torch.float64), alpha=unit, out=target[rows])
    return kept, rank, min(1.0, share)


def _unit(length: float) -> float:
    """What a tensor of this length is divided by before it is rounded: a power of two, 1 where none is needed."""
    return 1.0 if 1e-6 < length < 1e6 else math.ldexp(1.0, max(math.frexp(length)[1], -1000))


def _in_single(tensor: torch.Tensor, unit: float) -> torch.Tensor:
    return (tensor if unit == 1.0 else tensor / unit).to(torch.float32)


def _leading_left(matrix: torch.Tensor, alpha: float, rule: RankRule) -> torch.Tensor | None:
    """The left directions that are protected, (m, r); None if float32 cannot tell them."""
    negated, vectors = torch.linalg.eigh(negative_gram(matrix))
    values = (-negated).clamp(min=0.0).to(torch.float64).sqrt()
    largest = float(values[0])
    noise = _EPSILON * largest**2
    doubt = torch.minimum(noise / values.clamp(min=1e-300), torch.full_like(values, math.sqrt(noise)))
    rank = protected_rank(values, alpha, rule)
    certain = rank_margin(values, alpha) * float(values.sum()) > CAUTION * float(doubt.sum())
    if not certain or rank == 0 or float(values[rank - 1]) < LEAST * largest:
        return None
    if rank < len(values) and float(values[rank - 1] ** 2 - values[rank] ** 2) * TURN < noise:
        return None
    return vectors[:, :rank].contiguous()
