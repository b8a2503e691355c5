"""Projection of OPCM: the part of a task vector that is new to the accumulated delta (arXiv:2501.09522, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from hubmerge.linalg.directions import (
    Directions,
    Eigenpairs,
    batched_gram_eigenpairs,
    gram_eigenpairs,
    leading_directions,
    singular_directions,
)
from hubmerge.linalg.float32 import project_float32
from hubmerge.linalg.norms import frobenius_norm, safe_scale
from hubmerge.linalg.rank import RankRule, break_even_rank, protected_rank
from hubmerge.linalg.wide import project_wide
from hubmerge.support.lazy import torch

Diagonal = Literal["remove", "keep"]
Alpha = float | Literal["auto"]
Precision = Literal["float64", "float32"]


@dataclass(frozen=True)
class Projection:
    """Result of a projection.

    Attributes:
        kept: the part of the task vector that is kept, (m, n) float64.
        rank: the number of protected directions.
        removed_share: the removed share of the task vector's energy (sum of squares), from 0 to 1.
    """

    kept: torch.Tensor
    rank: int
    removed_share: float


def project(
    accumulated: torch.Tensor,
    task_vector: torch.Tensor,
    alpha: Alpha,
    *,
    rank_rule: RankRule = "paper",
    diagonal: Diagonal = "remove",
    precision: Precision = "float64",
    eigenpairs: Eigenpairs | None = None,
) -> Projection:
    """Remove from a task vector what lies along the singular directions of the accumulated delta.

    With the SVD accumulated = U S V^T and P = U^T task_vector V, the leading r x r block of P and its diagonal are set
    to zero (arXiv:2501.09522, Section 4). Directions of the null space (s_i <= NULL_CUT * s_1) keep their diagonal
    entry. If `accumulated` is zero, nothing is removed.

    Args:
        accumulated: the accumulated delta, (m, n) float64, finite; not changed.
        task_vector: (m, n) float64, finite; not changed.
        alpha: the share of the sum of singular values that sets r, from 0 to 1; "auto" for `break_even_rank`.
        rank_rule: the rule of `protected_rank`.
        diagonal: "remove" as in the paper; "keep" removes only the block.
        precision: the precision of the arithmetic. "float32" applies only if `diagonal` is "keep", with an error of
            about 1e-5 of the task vector: the diagonal depends on single directions, which float32 does not resolve.
            float64 is used where float32 does not give a certain rank, and for alpha "auto".
        eigenpairs: the result of `batched_eigenpairs` for `accumulated`, if known; they are overwritten.
    """
    upright = accumulated.shape[0] > accumulated.shape[1]
    matrix, vector = (accumulated.T, task_vector.T) if upright else (accumulated, task_vector)
    lengths = frobenius_norm(matrix), frobenius_norm(vector)
    if vector.numel() == 0 or lengths[0] == 0.0 or (diagonal == "keep" and alpha == 0.0):
        result = Projection(vector.clone(), 0, 0.0)
    else:
        result = _project(matrix, vector, lengths, alpha, rank_rule, diagonal, precision, eigenpairs)
    return replace(result, kept=result.kept.T) if upright else result


def _project(
    accumulated: torch.Tensor,
    task_vector: torch.Tensor,
    lengths: tuple[float, float],
    alpha: Alpha,
    rank_rule: RankRule,
    diagonal: Diagonal,
    precision: Precision,
    eigenpairs: Eigenpairs | None,
) -> Projection:
    """Do the work of `project` for matrices that are at least as wide as high; `lengths` are their norms."""
    if precision == "float32" and diagonal == "keep" and alpha != "auto":
        single = project_float32(accumulated, task_vector, lengths, alpha, rank_rule)
        if single is not None:
            return Projection(*single)
    accumulated_scale, task_scale = safe_scale(accumulated, lengths[0]), safe_scale(task_vector, lengths[1])
    matrix = accumulated if accumulated_scale == 1.0 else accumulated / accumulated_scale
    vector = task_vector if task_scale == 1.0 else task_vector / task_scale
    known = eigenpairs if accumulated_scale == 1.0 else None
    if alpha == "auto":
        kept, rank, removed = _project_break_even(matrix, vector, diagonal, known)
    elif diagonal == "keep":
        directions = leading_directions(matrix, alpha, rank_rule, known)
        rank = len(directions.values)
        kept, removed = _remove(directions, vector, rank, diagonal)
    else:
        kept, rank, removed = _project_paper(matrix, vector, alpha, rank_rule, known)
    energy = (lengths[1] / task_scale) ** 2
    share = min(1.0, removed / energy) if energy > 0.0 else 0.0
    return Projection(kept if task_scale == 1.0 else kept.mul_(task_scale), rank, share)


def batched_eigenpairs(accumulated: Sequence[torch.Tensor]) -> list[Eigenpairs | None]:
    """Compute the eigenpairs that `project` starts with for several matrices in one call.

    Args:
        accumulated: accumulated deltas, float64, whose shorter sides are equal.

    Returns:
        The eigenpairs of each matrix. None for a matrix that is zero or of extreme magnitude, and for all matrices if
        one does not converge: `project` then computes them.
    """
    ordinary = [number for number, matrix in enumerate(accumulated) if _ordinary(matrix) > 0.0]
    found: list[Eigenpairs | None] = [None] * len(accumulated)
    if ordinary:
        matrices = (accumulated[number] for number in ordinary)
        with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            pairs = batched_gram_eigenpairs([one if one.shape[0] <= one.shape[1] else one.T for one in matrices])
            for number, eigenpairs in zip(ordinary, pairs, strict=True):
                found[number] = eigenpairs
    return found


def _ordinary(matrix: torch.Tensor) -> float:
    """Return the Frobenius norm of a matrix, 0 if it would have to be scaled."""
    length = frobenius_norm(matrix)
    return length if safe_scale(matrix, length) == 1.0 else 0.0


def _project_paper(
    matrix: torch.Tensor, vector: torch.Tensor, alpha: float, rank_rule: RankRule, known: Eigenpairs | None
) -> tuple[torch.Tensor, int, float]:
    """Return what the paper's projection keeps, the rank, and the sum of squares of what it removes."""
    eigenvalues, left = gram_eigenpairs(matrix) if known is None else known
    wide = project_wide(matrix, vector, eigenvalues, left, alpha, rank_rule)
    if wide is not None:
        return wide
    directions = singular_directions(matrix, left)
    rank = protected_rank(directions.values, alpha, rank_rule)
    kept, removed = _remove(directions, vector, rank, "remove")
    return kept, rank, removed


def _project_break_even(
    matrix: torch.Tensor, vector: torch.Tensor, diagonal: Diagonal, known: Eigenpairs | None
) -> tuple[torch.Tensor, int, float]:
    """Return the results of `_project_paper` for the rank of `break_even_rank`, with or without the diagonal."""
    directions = singular_directions(matrix, None if known is None else known[1])
    coefficients = (directions.left.T @ vector) @ directions.right.T
    rank = break_even_rank(directions.values, coefficients, float(torch.linalg.vector_norm(vector)))
    del coefficients
    if diagonal == "keep":
        directions = Directions(directions.left[:, :rank], directions.right[:rank], directions.values[:rank])
    kept, removed = _remove(directions, vector, rank, diagonal)
    return kept, rank, removed


def _remove(directions: Directions, vector: torch.Tensor, rank: int, diagonal: Diagonal) -> tuple[torch.Tensor, float]:
    """Return `vector` without its leading block and diagonal, and the sum of squares of what was removed.

    This is the thin form of U P V^T: nothing outside the given directions changes, so neither the square V nor the
    null space is needed.
    """
    left, right = directions.left, directions.right
    coefficients = left.T @ vector
    block = coefficients[:rank] @ right[:rank].T
    if diagonal == "keep":
        return vector.clone().addmm_(left, block @ right, alpha=-1.0), float(torch.sum(block**2))
    entries = torch.linalg.vecdot(coefficients, right)
    block.fill_diagonal_(0.0)
    removed = float(torch.sum(block**2)) + float(torch.sum(entries**2))
    torch.mul(right, entries[:, None], out=coefficients)
    coefficients[:rank].addmm_(block, right[:rank])
    return vector.clone().addmm_(left, coefficients, alpha=-1.0), removed
