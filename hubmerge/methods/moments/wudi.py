"""WUDI: the merged delta that acts like each task vector on its own input space."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hubmerge.methods.adam import Adam
from hubmerge.methods.base import ReadInput
from hubmerge.methods.moments.base import MomentMethod, MomentParameters, Moments
from hubmerge.support.lazy import torch


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
            return _descended(moments, parameters)
        return ridge_solution(moments, parameters.ridge)


def ridge_solution(moments: Moments, ridge: float) -> torch.Tensor:
    """Return D with D (G + r I) = N + (r / c) S and r = ridge trace(G) / n; zeros if no entry moved the matrix."""
    side = moments.gram.shape[0]
    pull = ridge * float(moments.gram.trace()) / side
    if pull == 0.0:
        return torch.zeros_like(moments.sum)
    system = moments.gram + pull * torch.eye(side, dtype=moments.gram.dtype, device=moments.gram.device)
    target = torch.add(moments.products, moments.mean, alpha=pull)
    factor = torch.linalg.cholesky(system)
    return torch.cholesky_solve(target.T, factor).T.contiguous()


def _descended(moments: Moments, parameters: WudiParameters) -> torch.Tensor:
    descent = Adam(moments.sum.clone(), parameters.learning_rate)
    for _ in range(parameters.steps):
        descent.step(2.0 * (descent.value @ moments.gram - moments.products))
    return descent.value
