"""Methods that change the singular values of the summed task vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from hubmerge.linalg import Directions, batched_eigenpairs, frobenius_norm, power_of_two_near, singular_directions
from hubmerge.methods.base import MethodParameters, ReadInput
from hubmerge.methods.moments.base import MomentMethod, MomentParameters, Moments
from hubmerge.methods.others import adaptive_scale
from hubmerge.support.lazy import torch


class ScaledParameters(MomentParameters):
    """Parameters of methods whose result has a factor."""

    scaling: float = Field(1.5, gt=0.0, description="factor of the merged weight matrices")


class SpectrumParameters(MomentParameters):
    """Parameters of `spectrum`."""

    scaling: float = Field(0.5, gt=0.0, description="factor of the merged weight matrices")
    power: float = Field(0.5, ge=0.0, description="exponent of the singular values; 0 makes them equal, 1 keeps them")


class SubspaceBoostParameters(MomentParameters):
    """Parameters of `subspace_boost`."""

    beta: float = Field(
        0.01, ge=0.0, le=1.0, description="share of the sum of singular values that sets the smallest one"
    )
    scaling: Annotated[float, Field(gt=0.0)] | Literal["adaptive"] = Field(
        "adaptive",
        description="factor of the merged weight matrices; `adaptive` keeps the norm of each sum and divides by OPCM's "
        "λ",
    )


class SpectrumMethod(MomentMethod):
    """Base of methods that replace the singular values of S. S = U diag(s) V^T,  D = factor U diag(f(s)) V^T.

    Directions in which S is zero, such as those outside the ranks of all adapters, stay zero.
    """

    def read_moments(self, moments: Moments, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return D, (m, n)."""
        unit = power_of_two_near(moments.sum)
        return self._merged(moments.sum, all_directions(moments.sum / unit), unit, tensor)

    def read_together(self, moments: Sequence[Moments], tensors: Sequence[ReadInput[Any]]) -> Sequence[torch.Tensor]:
        """Return D of several matrices of one shape: their eigenproblems are solved in one call."""
        units = [power_of_two_near(own.sum) for own in moments]
        scaled = [own.sum / unit for own, unit in zip(moments, units, strict=True)]
        pairs = batched_eigenpairs(scaled)
        return [
            self._merged(own.sum, all_directions(matrix, None if known is None else known[1]), unit, tensor)
            for own, matrix, known, unit, tensor in zip(moments, scaled, pairs, units, tensors, strict=True)
        ]

    def _merged(self, total: torch.Tensor, directions: Directions, unit: float, tensor: ReadInput[Any]) -> torch.Tensor:
        """Return D from the singular directions of S over a power of two."""
        if not len(directions.values):
            return torch.zeros_like(total)
        values = self.changed(directions.values, tensor.parameters)
        merged = (directions.left * (values * unit)) @ directions.right
        return merged * self.factor(merged, total, tensor)

    @abstractmethod
    def changed(self, values: torch.Tensor, parameters: Any) -> torch.Tensor:
        """Return f(s) for the singular values that are not zero, (k,), descending."""

    def factor(self, merged: torch.Tensor, total: torch.Tensor, tensor: ReadInput[Any]) -> float:
        """Return the factor of a matrix; by default the parameter `scaling`."""
        return float(tensor.parameters.scaling)


class IsoC(SpectrumMethod):
    """Isotropic merging in the common subspace. S = U diag(s) V^T,  D = scaling mean(s) U V^T."""

    name = "iso_c"
    summary = "sum of the task vectors with equal singular values; any order, entries can be revoked"
    source = "arXiv:2502.04959, Section 4 (Iso-C)"
    Parameters: type[MethodParameters] = ScaledParameters

    def changed(self, values: torch.Tensor, parameters: Any) -> torch.Tensor:
        """Return the mean of s for all."""
        return torch.full_like(values, float(values.mean()))


class Spectrum(SpectrumMethod):
    """Power of the spectrum. S = U diag(s) V^T,  D = scaling U diag(s^p mean(s) / mean(s^p)) V^T; p = 0 is Iso-C."""

    name = "spectrum"
    summary = "sum of the task vectors with flatter singular values; any order, entries can be revoked"
    source = "ours; p = 0 is Iso-C of arXiv:2502.04959"
    Parameters = SpectrumParameters

    def changed(self, values: torch.Tensor, parameters: SpectrumParameters) -> torch.Tensor:
        """Return s^p with the mean of s."""
        powers = values**parameters.power
        return powers * (values.mean() / powers.mean())


class SubspaceBoost(SpectrumMethod):
    """Subspace boosting. S = U diag(s) V^T,  D = factor U diag(max(s, s_k)) V^T.

    k is the first index with s_1 + ... + s_k >= beta (s_1 + s_2 + ...): the smaller singular values are raised to that
    one. With `scaling: adaptive`, the matrix keeps the norm of S and is divided by OPCM's λ.
    """

    name = "subspace_boost"
    summary = "sum of the task vectors with its small directions raised; any order, entries can be revoked"
    source = "arXiv:2506.16506, Algorithm of subspace boosting on the sum of task vectors"
    Parameters = SubspaceBoostParameters

    def changed(self, values: torch.Tensor, parameters: SubspaceBoostParameters) -> torch.Tensor:
        """Return max(s, s_k)."""
        shares = torch.cumsum(values, 0) / values.sum()
        first = min(int((shares < parameters.beta).sum()), len(values) - 1)
        return values.clamp(min=float(values[first]))

    def factor(self, merged: torch.Tensor, total: torch.Tensor, tensor: ReadInput[SubspaceBoostParameters]) -> float:
        """Return the factor of the recipe, or the one that keeps the norm of S, over λ."""
        scaling = tensor.parameters.scaling
        if scaling != "adaptive":
            return float(scaling)
        return frobenius_norm(total) / frobenius_norm(merged) / adaptive_scale(tensor.norms)


def all_directions(matrix: torch.Tensor, left: torch.Tensor | None = None) -> Directions:
    """Return the singular directions of a matrix of any shape in which it is not zero.

    Args:
        matrix: (m, n) float64; squares of its elements stay inside float64.
        left: the eigenvectors of `batched_eigenpairs`, if known; they are overwritten.
    """
    if not bool(matrix.any()):
        return Directions(matrix[:, :0], matrix[:0], matrix.new_empty((0,)))
    if matrix.shape[0] <= matrix.shape[1]:
        return singular_directions(matrix, left)
    turned = singular_directions(matrix.T.contiguous(), left)
    return Directions(turned.right.T, turned.left.T, turned.values)
