"""Null-space filtering of task vectors, alone and with a trained low-rank adapter (NUFILT)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hubmerge.linalg import power_of_two_near, singular_directions
from hubmerge.methods.base import Absorbed, MethodParameters, Norms
from hubmerge.methods.opcm import adaptive_scale
from hubmerge.support.lazy import torch

ADAPTER_DEVIATION = 0.02
"""Standard deviation that A is drawn with; B starts at zero."""


class NullSpaceParameters(MethodParameters):
    """Parameters of `null_space_filter`."""

    rank: int = Field(128, ge=1, description="right singular directions of the accumulated delta that are protected")
    others: Literal["keep", "sum"] = Field(
        "keep", description="tensors that are no weight matrices: `keep` the base model's, or `sum` their changes"
    )


class NullSpaceFilterParameters(NullSpaceParameters):
    """Parameters of `null_space_filter`."""

    scaling: Literal["none", "adaptive"] = Field(
        "none", description="`adaptive` divides by OPCM's λ, which keeps the merged model as near the base as one step"
    )


class NufiltParameters(NullSpaceParameters):
    """Parameters of `nufilt`."""

    adapter_rank: int = Field(64, ge=1, description="rank of the adapter B A")
    task_rank: int = Field(8, ge=1, description="right singular directions of the task vector that are to be matched")
    steps: int = Field(50, ge=0, description="steps of Adam for each matrix")
    learning_rate: float = Field(1e-3, gt=0.0, description="step size of Adam")
    seed: int = Field(0, ge=0, description="of the numbers that A starts with")


class NullSpaceFilter:
    """Null-space filter. A_1 = τ_1,  A_t = A_{t-1} + τ_t (I - V V^T),  θ_t = θ_0 + A_t.

    V holds the leading right singular vectors of A_{t-1}: inputs along them meet what was merged before, unchanged.
    Published without a scale; `scaling: adaptive` divides by OPCM's λ_t instead.
    """

    name = "null_space_filter"
    source = "arXiv:2509.21413, null-space filtering (NUFILT without its adapter)"
    Parameters: type[MethodParameters] = NullSpaceFilterParameters

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NullSpaceParameters, *, step: int
    ) -> Absorbed:
        """Add what of the task vector does not act on the protected directions."""
        protected = leading_right(accumulated, parameters.rank)
        acting, kept = filtered(task_vector, protected)
        return Absorbed(accumulated + kept, len(protected), _share(acting, task_vector))

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NullSpaceParameters, *, step: int
    ) -> torch.Tensor:
        """Nothing, or the sum."""
        return accumulated + task_vector if parameters.others == "sum" else accumulated + 0.0

    def scale(self, norms: Norms, parameters: MethodParameters) -> float:
        """1, or λ_t."""
        adaptive = isinstance(parameters, NullSpaceFilterParameters) and parameters.scaling == "adaptive"
        return adaptive_scale(norms) if adaptive else 1.0


class Nufilt(NullSpaceFilter):
    """NUFILT. A_1 = τ_1,  A_t = A_{t-1} + τ_t (P + B A) with P = I - V V^T,  θ_t = θ_0 + A_t.

    V holds the `rank` leading right singular vectors of D = A_{t-1}, W the `task_rank` leading ones of τ_t. Adam
    lowers, from A drawn and B = 0,
        L(A, B) = || τ W - (D + τ (P + B A)) W ||^2 + || D V - (D + τ (P + B A)) V ||^2,
    plasticity and stability. As P V = 0 the second term is || τ B A V ||^2. So read from the paper's abstract and
    the authors' released code; where the code takes out arbitrary directions at step 1 (the SVD of a zero delta),
    the first task vector is taken whole here, as by every other method.
    """

    name = "nufilt"
    source = "arXiv:2509.21413, null-space filtering with a projection-aware adapter"
    Parameters = NufiltParameters

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NullSpaceParameters, *, step: int
    ) -> Absorbed:
        """Filter the task vector, then add what the adapter makes of it."""
        protected = leading_right(accumulated, parameters.rank)
        _, kept = filtered(task_vector, protected)
        if len(protected) and isinstance(parameters, NufiltParameters) and bool(task_vector.any()):
            wanted = leading_right(task_vector, parameters.task_rank)
            right, left = trained_adapter(accumulated, task_vector, protected, wanted, parameters)
            kept += (task_vector @ left) @ right
        return Absorbed(accumulated + kept, len(protected), _share(task_vector - kept, task_vector))


def filtered(task_vector: torch.Tensor, protected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """τ V, and τ (I - V V^T); `protected` holds V^T."""
    acting = task_vector @ protected.T
    return acting, torch.addmm(task_vector, acting, protected, alpha=-1.0)


def trained_adapter(
    delta: torch.Tensor,
    task_vector: torch.Tensor,
    protected: torch.Tensor,
    wanted: torch.Tensor,
    parameters: NufiltParameters,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A, (r, n), and B, (n, r), after so many steps of Adam on the loss of `Nufilt`.

    `protected` and `wanted` hold V^T and W^T: rows of unit length, (k, n).
    """
    count = task_vector.shape[1]
    # All on the small side: the gradients need τ only through τ^T τ and τ^T times the fixed residual.
    passed = wanted - (wanted @ protected.T) @ protected
    residual = (task_vector @ (wanted - passed).T) - delta @ wanted.T
    directions = torch.cat([wanted, protected])
    target = torch.cat([task_vector.T @ residual, torch.zeros_like(protected.T)], dim=1)
    gram = task_vector.T @ task_vector
    generator = torch.Generator().manual_seed(parameters.seed)
    right = torch.randn((parameters.adapter_rank, count), generator=generator, dtype=torch.float64)
    right = (ADAPTER_DEVIATION * right).to(task_vector.device)
    left = torch.zeros((count, parameters.adapter_rank), dtype=torch.float64, device=task_vector.device)
    descent = [Adam(right, parameters.learning_rate), Adam(left, parameters.learning_rate)]
    for _ in range(parameters.steps):
        seen = right @ directions.T
        error = target - gram @ (left @ seen)
        gradients = -2.0 * (left.T @ error) @ directions, -2.0 * error @ seen.T
        right, left = (adam.step(gradient) for adam, gradient in zip(descent, gradients, strict=True))
    return right, left


class Adam:
    """Adam (arXiv:1412.6980, Algorithm 1) on one float64 tensor, with the usual β_1 = 0.9, β_2 = 0.999, ε = 1e-8."""

    def __init__(self, value: torch.Tensor, learning_rate: float) -> None:
        self.value = value
        self._rate = learning_rate
        self._mean, self._square = torch.zeros_like(value), torch.zeros_like(value)
        self._count = 0

    def step(self, gradient: torch.Tensor) -> torch.Tensor:
        """The value after one more step."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * gradient**2
        mean = self._mean / (1.0 - 0.9**self._count)
        square = self._square / (1.0 - 0.999**self._count)
        self.value = self.value - self._rate * mean / (square.sqrt() + 1e-8)
        return self.value


def leading_right(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """The `rank` leading right singular vectors of a matrix as rows, fewer where its null space begins."""
    if not bool(matrix.any()):
        return matrix.new_zeros((0, matrix.shape[1]))
    scale = power_of_two_near(matrix)
    matrix = matrix if scale == 1.0 else matrix / scale
    if matrix.shape[0] <= matrix.shape[1]:
        return singular_directions(matrix).right[:rank]
    return singular_directions(matrix.T.contiguous()).left.T[:rank].contiguous()


def _share(taken: torch.Tensor, whole: torch.Tensor) -> float:
    energy = float(torch.sum(whole**2))
    return min(1.0, float(torch.sum(taken**2)) / energy) if energy > 0.0 else 0.0
