"""ACE on moments: the merged delta as a mean of the task vectors weighted by estimated input covariances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from hubmerge.methods.base import ReadInput
from hubmerge.methods.moments.base import MomentMethod, MomentParameters, Moments
from hubmerge.methods.moments.spectra import all_directions
from hubmerge.methods.moments.together import solve_together
from hubmerge.support.lazy import torch


class AceParameters(MomentParameters):
    """Parameters of `ace`."""

    epsilon: float = Field(0.01, gt=0.0, description="added to each covariance, relative to its mean eigenvalue")
    refined: float = Field(
        0.0, ge=0.0, le=1.0, description="share of directions that are refined; the authors use 0.3 for language models"
    )


class Ace(MomentMethod):
    """ACE with normalized covariances. D = (Σ w_i τ_i C_i) (Σ w_i C_i + 1 p^T)^{-1},  C_i = τ_i^T τ_i / |τ_i|² + e I.

    1 p^T is the collective prior: p, (n,), is the mean of the rows of G, and stands in every row. e is epsilon over n.
    With `refined`, R = Σ w_i τ_i (C_i - mean C) + D, and the mean of its leading singular values times their U V^T is
    added to D.

    This is how we read the paper and the released code, with two differences that moments ask for: covariances are
    always normalized by their trace, which the code does only for task vectors of very different norms, and the rows
    of the task vectors are not centered.
    """

    name = "ace"
    summary = "mean weighted by covariances estimated from the changes; any order, entries can be revoked"
    source = "arXiv:2603.02945, closed form, collective prior and spectral refinement, on moments"
    Parameters = AceParameters

    def read_moments(self, moments: Moments, tensor: ReadInput[AceParameters]) -> torch.Tensor:
        """Return D, (m, n)."""
        system = _system(moments, tensor.parameters.epsilon)
        if system is None:
            return torch.zeros_like(moments.sum)
        return _refined(_solution(*system), moments, tensor.parameters)

    def read_together(self, moments: Sequence[Moments], tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return D of several matrices of one shape: the equations of all are solved in one call."""
        parameters: AceParameters = tensors[0].parameters
        found = solve_together([_system(own, parameters.epsilon) for own in moments], _solution)
        return [
            torch.zeros_like(own.sum) if one is None else _refined(one, own, parameters)
            for own, one in zip(moments, found, strict=True)
        ]


def _system(moments: Moments, epsilon: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return C + p 1^T and B of (C + p 1^T) D^T = B^T; None if no entry moved the matrix."""
    if not bool(moments.gram.any()):
        return None
    side = moments.gram.shape[0]
    floor = epsilon / side
    covariance = moments.gram + moments.weight * floor * torch.eye(
        side, dtype=moments.gram.dtype, device=moments.gram.device
    )
    # X (C + 1 p^T) = B is solved as (C + p 1^T) X^T = B^T; C is symmetric.
    return covariance + moments.gram.mean(dim=0)[:, None], torch.add(moments.products, moments.sum, alpha=floor)


def _solution(system: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return X with system X^T = target^T, for an (n, n) system and an (m, n) target or for stacks of both."""
    return torch.linalg.solve(system, target.mT).mT.contiguous()


def _refined(merged: torch.Tensor, moments: Moments, parameters: AceParameters) -> torch.Tensor:
    """Return D, with its spectral refinement if the parameters ask for one."""
    count = int(parameters.refined * min(merged.shape))
    if count == 0:
        return merged
    residual = merged + moments.products - moments.sum @ moments.gram / moments.weight
    directions = all_directions(residual)
    left, right = directions.left[:, :count], directions.right[:count]
    return merged + float(directions.values[:count].mean()) * (left @ right)
