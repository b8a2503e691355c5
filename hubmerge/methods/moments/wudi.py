"""WUDI: the merged delta that acts like each task vector on its own input space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from hubmerge.methods.adam import Adam
from hubmerge.methods.base import ReadInput
from hubmerge.methods.moments.base import MomentMethod, MomentParameters, Moments
from hubmerge.methods.moments.together import solve_together
from hubmerge.support.lazy import torch

UNMOVED = 1e-6
"""Share of the weights of all entries up to which those that moved a matrix count as rounding: they were taken out."""


class WudiParameters(MomentParameters):
    """Parameters of `wudi`."""

    solver: Literal["exact", "adam"] = Field(
        "exact", description="`exact` solves for the minimum; `adam` takes the steps of the authors' code"
    )
    ridge: float = Field(
        0.1, gt=0.0, description="`exact`: pull towards the mean, relative to the mean eigenvalue of G"
    )
    steps: int = Field(300, ge=0, description="`adam`: number of steps")
    learning_rate: float = Field(1e-5, gt=0.0, description="`adam`: step size")


class Wudi(MomentMethod):
    """WUDI from moments. D minimizes Σ w_i |(D - τ_i) τ_i^T|² / |τ_i|², whose gradient is 2 (D G - N).

    With `solver: exact`, D (G + r I) = N + (r / c) S, with r = ridge trace(G) / n: as the ridge grows, D goes to the
    mean S / c. With `solver: adam`, D starts at S and takes 300 steps of Adam with step size 1e-5, as released. No
    task vector is needed, only the moments. Other tensors: `others`.
    """

    name = "wudi"
    summary = "acts like each checkpoint on the inputs that it uses; any order, entries can be revoked"
    source = "arXiv:2503.08099, Eq. of the data-free objective; the exact solution and its ridge are ours"
    Parameters = WudiParameters

    def read_moments(self, moments: Moments, tensor: ReadInput[WudiParameters]) -> torch.Tensor:
        """Return D, (m, n)."""
        parameters = tensor.parameters
        if parameters.solver == "adam":
            return _descended(moments.sum, moments.products, moments.gram, parameters)
        system = _ridge_system(moments, parameters.ridge)
        return torch.zeros_like(moments.sum) if system is None else _solution(*system)

    def read_together(self, moments: Sequence[Moments], tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return D of several matrices of one shape: the equations of all are solved in one call."""
        parameters: WudiParameters = tensors[0].parameters
        if parameters.solver == "adam":
            stacks = [torch.stack(parts) for parts in zip(*((m.sum, m.products, m.gram) for m in moments), strict=True)]
            return _descended(stacks[0], stacks[1], stacks[2], parameters).unbind()
        found = solve_together([_ridge_system(own, parameters.ridge) for own in moments], _solution)
        return [torch.zeros_like(own.sum) if one is None else one for own, one in zip(moments, found, strict=True)]


def _ridge_system(moments: Moments, ridge: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return G + r I and N + (r / c) S with r = ridge trace(G) / n; None if no entry moved the matrix."""
    side, total = moments.gram.shape[0], float(moments.gram.trace())
    # trace(G) is the sum of the weights of those entries that moved the matrix.
    if abs(total) <= UNMOVED * moments.weight:
        return None
    pull = ridge * total / side
    system = moments.gram + pull * torch.eye(side, dtype=moments.gram.dtype, device=moments.gram.device)
    return system, torch.add(moments.products, moments.mean, alpha=pull)


def _solution(system: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return D with D system = target, for a symmetric (n, n) system and an (m, n) target or for stacks of both."""
    return torch.cholesky_solve(target.mT, torch.linalg.cholesky(system)).mT.contiguous()


def _descended(
    start: torch.Tensor, products: torch.Tensor, gram: torch.Tensor, parameters: WudiParameters
) -> torch.Tensor:
    """Return D after the steps of Adam from S, for one matrix or a stack of them."""
    descent = Adam(start.clone(), parameters.learning_rate)
    for _ in range(parameters.steps):
        descent.step(2.0 * (descent.value @ gram - products))
    return descent.value
