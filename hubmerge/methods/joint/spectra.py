"""Methods on the singular vectors of task vectors: TSV-Merge and Iso-CTS. Other tensors than weight matrices: the mean.

The decompositions are in float64: their small singular values decide directions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import JointMethod, JointParameters
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

Whole = PerTensor(entries=False)

NULL = 1e-10
"""Share of the largest singular value up to which a direction counts as none."""


def svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the thin singular value decomposition U, s, V^T in float64."""
    return torch.linalg.svd(matrix.to(torch.float64), full_matrices=False)


def nearest_orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix with orthonormal columns (or rows) that is nearest to a matrix: U V^T of its decomposition."""
    left, _, right = svd(matrix)
    return left @ right


class SpectralMethod(JointMethod):
    """Base of methods that merge the task vectors of a weight matrix by their singular vectors.

    Attributes:
        inputs_last: the method tells inputs from outputs: matrices that are stored as (inputs, outputs) are transposed.
    """

    copies = 8
    inputs_last = False

    @abstractmethod
    def merge_matrices(self, deltas: Callable[[int], torch.Tensor], count: int, parameters: Any) -> torch.Tensor:
        """Return the merged task vector of one weight matrix; `deltas(i)` is that of model i, float64."""

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the base model plus the merged task vector of each matrix, or plus the mean of the task vectors."""
        assert base is not None  # noqa: S101 - the methods require a base model
        count, scaling = len(tensors), parameters.whole.scaling
        if not parameters.is_matrix:
            mean = torch.zeros_like(base)
            for tensor in tensors:
                mean += tensor - base
            return base + scaling * mean / count
        if base.dim() == 2:
            origin, turned = base.to(torch.float64), self.inputs_last and parameters.transposed

            def delta(model: int) -> torch.Tensor:
                found = tensors[model].to(torch.float64) - origin
                return found.T if turned else found

            merged = self.merge_matrices(delta, count, parameters.whole)
            return (origin + scaling * (merged.T if turned else merged)).to(base.dtype)
        experts = [_Slices(tensors, number) for number in range(base.shape[0])]
        return torch.stack([self.merge(one, part, parameters) for one, part in zip(base, experts, strict=True)])


class _Slices(Sequence[Any]):
    """The matrices of one expert in the tensors of all models."""

    def __init__(self, tensors: Sequence[Any], number: int) -> None:
        self._tensors = tensors
        self._number = number

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, index: Any) -> Any:
        return self._tensors[index][self._number]


class ScalingParameters(MethodParameters):
    """Parameters of a method with one factor."""

    scaling: Annotated[float, Whole] = Field(1.0, description="factor of the merged task vector")


class TsvM(SpectralMethod):
    """TSV-Merge. Δ = c Û Σ V̂^T from the leading k = max(1, r / n) singular triples of each of n task vectors.

    U = [U_1 ... U_n] and V = [V_1 ... V_n] side by side, Û and V̂ the orthogonal matrices nearest to them (U V^T of
    their decompositions), Σ the singular values of all. r is the smaller side of the matrix.
    """

    name = "tsv_m"
    summary = "leading singular triples of each task vector, made orthogonal to each other"
    source = "arXiv:2412.00081, Algorithm 1 (TSV-Merge)"
    Parameters = ScalingParameters

    def merge_matrices(self, deltas: Callable[[int], torch.Tensor], count: int, parameters: Any) -> torch.Tensor:
        """Return Û Σ V̂^T."""
        left, values, right = [], [], []
        for model in range(count):
            u, s, v = svd(deltas(model))
            kept = max(1, len(s) // count)
            left.append(u[:, :kept])
            values.append(s[:kept])
            right.append(v[:kept])
        return (nearest_orthogonal(torch.cat(left, 1)) * torch.cat(values)) @ nearest_orthogonal(torch.cat(right, 0))


class IsoCtsParameters(ScalingParameters):
    """Parameters of `iso_cts`."""

    common: Annotated[float, Whole] = Field(
        0.8, gt=0.0, le=1.0, description="share of directions that come from the sum of the task vectors"
    )


class IsoCts(SpectralMethod):
    """Iso-CTS: equal singular values in a common subspace and in one subspace for each task. Δ = c σ̄ Û V̂^T.

    The common directions are the leading ones of Σ τ_i = U Σ V^T, about the share `common` of all. Each of n tasks adds
    an equal number of leading directions of τ_i - U_c U_c^T τ_i, where U_c are the common left ones. Û and V̂ are the
    orthogonal matrices nearest to all left and all right vectors side by side, σ̄ is the mean of all their singular
    values. Directions without any singular value, as adapters of small rank have many, are left out.
    """

    name = "iso_cts"
    summary = "equal singular values in a common subspace and one for each task"
    source = "arXiv:2502.04959, Algorithm 2 (Iso-CTS)"
    Parameters = IsoCtsParameters
    inputs_last = True

    def merge_matrices(self, deltas: Callable[[int], torch.Tensor], count: int, parameters: Any) -> torch.Tensor:
        """Return σ̄ Û V̂^T."""
        total = deltas(0).clone()
        for model in range(1, count):
            total += deltas(model)
        u, s, v = svd(total)
        own = min(len(s) // count, round((len(s) - int(len(s) * parameters.common)) / count))
        common = len(s) - own * count
        shared = u[:, :common]
        spaces = [(shared, s[:common], v[:common])]
        for model in range(count if own else 0):
            delta = deltas(model)
            parts = svd(delta - shared @ (shared.T @ delta))
            spaces.append((parts[0][:, :own], parts[1][:own], parts[2][:own]))
        left = torch.cat([space[0] for space in spaces], 1)
        values = torch.cat([space[1] for space in spaces])
        right = torch.cat([space[2] for space in spaces])
        kept = values > NULL * values.max()
        if not bool(kept.any()):
            return total
        left, values, right = left[:, kept], values[kept], right[kept]
        return values.mean() * (nearest_orthogonal(left) @ nearest_orthogonal(right))
