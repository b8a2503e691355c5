"""What of a task vector is new to the accumulated delta: the projection of OPCM (arXiv:2501.09522, Section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from hubmerge.linalg.directions import (
    Directions,
    Eigenpairs,
    gram_eigenpairs,
    gram_eigenpairs_together,
    leading_directions,
    singular_directions,
    truncated_directions,
)
from hubmerge.linalg.norms import frobenius_norm, safe_scale
from hubmerge.linalg.rank import RankRule, break_even_rank, protected_rank
from hubmerge.linalg.single import project_in_single
from hubmerge.linalg.wide import project_wide
from hubmerge.support.lazy import torch

Diagonal = Literal["remove", "keep"]
Alpha = float | Literal["auto"]
Precision = Literal["float64", "float32"]


@dataclass(frozen=True)
class Projection:
    """The part of a task vector that is kept, (m, n) float64.

    `rank` is the number of protected directions, `removed_share` the share of the task vector's energy
    (sum of squares) that was taken out, between 0 and 1. `error` is the length of what the exact form would have
    taken out besides, over the length of the task vector; None where the exact form was computed.
    """

    kept: torch.Tensor
    rank: int
    removed_share: float
    error: float | None = None


def project(
    accumulated: torch.Tensor,
    task_vector: torch.Tensor,
    alpha: Alpha,
    *,
    rank_rule: RankRule = "paper",
    diagonal: Diagonal = "remove",
    truncate: float | None = None,
    precision: Precision = "float64",
    eigenpairs: Eigenpairs | None = None,
) -> Projection:
    """Take out of `task_vector` what lies along the singular directions of `accumulated`.

    Both are (m, n), float64, finite, and left as they are. With the SVD accumulated = U S V^T and
    P = U^T task_vector V, the leading r x r block of P is set to zero, and so is its diagonal unless
    `diagonal` is "keep". Directions of the null space (s_i <= NULL_CUT * s_1) keep their diagonal entry.
    A zero accumulated delta takes nothing out. With alpha "auto" the rank is that of `break_even_rank`.

    `truncate` works with the leading directions only, those that make up this share of the sum of the singular
    values (or `alpha`, if that is more); the diagonal entries of the others stay, and `error` says how much that is.

    `precision` is that of the arithmetic. "float32" is for `diagonal` "keep" alone, where it costs about 1e-5 of the
    task vector: removing the diagonal hangs on single directions, which float32 does not resolve. Where it cannot
    tell the rank for certain, or has to find it ("auto"), float64 takes over.

    `eigenpairs` are what `eigenpairs_together` gives for `accumulated`, if they are there already; they are used up.
    """
    if accumulated.shape[0] > accumulated.shape[1]:
        turned = project(
            accumulated.T,
            task_vector.T,
            alpha,
            rank_rule=rank_rule,
            diagonal=diagonal,
            truncate=truncate,
            precision=precision,
            eigenpairs=eigenpairs,
        )
        return replace(turned, kept=turned.kept.T)
    lengths = frobenius_norm(accumulated), frobenius_norm(task_vector)
    if task_vector.numel() == 0 or lengths[0] == 0.0 or (diagonal == "keep" and alpha == 0.0):
        return Projection(task_vector.clone(), 0, 0.0)
    if precision == "float32" and diagonal == "keep" and alpha != "auto":
        single = project_in_single(accumulated, task_vector, lengths, alpha, rank_rule)
        if single is not None:
            return Projection(*single)
    accumulated_scale, task_scale = safe_scale(accumulated, lengths[0]), safe_scale(task_vector, lengths[1])
    matrix = accumulated if accumulated_scale == 1.0 else accumulated / accumulated_scale
    vector = task_vector if task_scale == 1.0 else task_vector / task_scale
    known = eigenpairs if accumulated_scale == 1.0 else None
    if diagonal == "remove" and truncate is None and alpha != "auto":
        kept, rank, removed, neglected = *_project_exactly(matrix, vector, alpha, rank_rule, known), None
    else:
        kept, rank, removed, neglected = _project_otherwise(matrix, vector, alpha, rank_rule, diagonal, truncate, known)
    energy = (lengths[1] / task_scale) ** 2
    share = min(1.0, removed / energy) if energy > 0.0 else 0.0
    error = None if neglected is None else (neglected / energy) ** 0.5 if energy > 0.0 else 0.0
    return Projection(kept if task_scale == 1.0 else kept.mul_(task_scale), rank, share, error)


def eigenpairs_together(accumulated: Sequence[torch.Tensor]) -> list[Eigenpairs | None]:
    """What `project` begins with, for several matrices whose shorter sides are equal, in one call.

    None for a matrix that is zero or of extreme magnitude, and for all if there are none of one of them: `project`
    finds out by itself, and tells.
    """
    ordinary = [number for number, matrix in enumerate(accumulated) if _ordinary(matrix) > 0.0]
    found: list[Eigenpairs | None] = [None] * len(accumulated)
    if ordinary:
        lying = (accumulated[number] for number in ordinary)
        with suppress(torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            together = gram_eigenpairs_together([one if one.shape[0] <= one.shape[1] else one.T for one in lying])
            for number, eigenpairs in zip(ordinary, together, strict=True):
                found[number] = eigenpairs
    return found


def _ordinary(matrix: torch.Tensor) -> float:
    """The length of a matrix, 0 if it would have to be scaled."""
    length = frobenius_norm(matrix)
    return length if safe_scale(matrix, length) == 1.0 else 0.0


def _project_exactly(
    matrix: torch.Tensor, vector: torch.Tensor, alpha: float, rank_rule: RankRule, known: Eigenpairs | None
) -> tuple[torch.Tensor, int, float]:
    """The paper's form: what is kept, the rank, and the sum of squares of what was taken out."""
    eigenvalues, left = gram_eigenpairs(matrix) if known is None else known
    wide = project_wide(matrix, vector, eigenvalues, left, alpha, rank_rule)
    if wide is not None:
        return wide
    directions = singular_directions(matrix, left)
    rank = protected_rank(directions.values, alpha, rank_rule)
    kept, removed = _take_out(directions, vector, rank, "remove")
    return kept, rank, removed


def _project_otherwise(
    matrix: torch.Tensor,
    vector: torch.Tensor,
    alpha: Alpha,
    rank_rule: RankRule,
    diagonal: Diagonal,
    truncate: float | None,
    known: Eigenpairs | None,
) -> tuple[torch.Tensor, int, float, float | None]:
    """The other forms: the same three, and the sum of squares of what the exact form would have taken out besides."""
    neglected = None
    if diagonal == "keep" and alpha != "auto":
        directions = leading_directions(matrix, alpha, rank_rule, known)
        values = directions.values
    elif truncate is not None and diagonal == "remove":
        directions, values, neglected = truncated_directions(
            matrix, vector, truncate if alpha == "auto" else max(truncate, alpha), known
        )
    else:
        directions = singular_directions(matrix, None if known is None else known[1])
        values = directions.values
    rank = len(values) if diagonal == "keep" else 0
    if alpha == "auto":
        seen = (directions.left.T @ vector) @ directions.right.T
        rank = break_even_rank(values, seen, float(torch.linalg.vector_norm(vector)))
        del seen
    elif diagonal == "remove":
        rank = protected_rank(values, alpha, rank_rule)
    if diagonal == "keep":
        directions = Directions(directions.left[:, :rank], directions.right[:rank], directions.values[:rank])
    kept, removed = _take_out(directions, vector, rank, diagonal)
    return kept, rank, removed, neglected


def _take_out(
    directions: Directions, vector: torch.Tensor, rank: int, diagonal: Diagonal
) -> tuple[torch.Tensor, float]:
    """`vector` without its leading block and diagonal, and the sum of squares of what was taken out.

    The thin form of U P V^T: nothing outside the given directions is touched, so neither the square V nor
    the null space is needed.
    """
    left, right = directions.left, directions.right
    turned = left.T @ vector
    block = turned[:rank] @ right[:rank].T
    if diagonal == "keep":
        return vector.clone().addmm_(left, block @ right, alpha=-1.0), float(torch.sum(block**2))
    entries = torch.linalg.vecdot(turned, right)
    block.fill_diagonal_(0.0)
    removed = float(torch.sum(block**2)) + float(torch.sum(entries**2))
    coefficients = torch.mul(right, entries[:, None], out=turned)
    coefficients[:rank].addmm_(block, right[:rank])
    return vector.clone().addmm_(left, coefficients, alpha=-1.0), removed
