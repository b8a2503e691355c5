"""Null-space filter for task vectors, alone and with a trained low-rank adapter (NUFILT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from hubmerge.linalg import power_of_two_near, singular_directions
from hubmerge.methods.adam import Adam
from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, TensorInput
from hubmerge.methods.others import OTHERS, Others, ReadsOthers, adaptive_scale
from hubmerge.support.lazy import torch

ADAPTER_DEVIATION = 0.02
"""Standard deviation of the random initial A; B starts at zero."""


class NullSpaceParameters(MethodParameters):
    """Parameters that both methods have."""

    rank: int = Field(128, ge=1, description="right singular directions of the accumulated delta that are protected")
    others: Others = Field("keep", description=OTHERS)


class NullSpaceFilterParameters(NullSpaceParameters):
    """Parameters of `null_space_filter`."""

    scaling: Literal["none", "adaptive"] = Field(
        "none",
        description="`adaptive` divides by OPCM's λ, so the merged model stays near the base model",
    )


class NufiltParameters(NullSpaceParameters):
    """Parameters of `nufilt`."""

    adapter_rank: int = Field(64, ge=1, description="rank of the adapter B A")
    task_rank: int = Field(8, ge=1, description="right singular directions of the task vector to match")
    steps: int = Field(50, ge=0, description="steps of Adam per matrix")
    learning_rate: float = Field(1e-3, gt=0.0, description="step size of Adam")
    seed: int = Field(0, ge=0, description="seed of the initial A")


class NullSpaceFilter(Method):
    """Null-space filter. A_1 = τ_1,  A_t = A_{t-1} + τ_t (I - V V^T),  θ_t = θ_0 + A_t.

    V holds the leading right singular vectors of A_{t-1}: inputs along them see what was merged before, unchanged.
    Published without a scale; `scaling: adaptive` divides by OPCM's λ_t.
    """

    name = "null_space_filter"
    summary = "adds what does not act on the inputs that earlier models use"
    source = "arXiv:2509.21413, null-space filtering (NUFILT without its adapter)"
    Parameters: type[MethodParameters] = NullSpaceFilterParameters

    def variant_for(self, parameters: NullSpaceParameters) -> Method:
        """Return the variant that divides the sum of other tensors, as `others` says."""
        return self if parameters.others in {"keep", "sum"} else self.dividing()

    def dividing(self) -> Method:
        """Return the variant for `mean` and `adaptive`."""
        return _DividingFilter()

    def state_parameters(self, parameters: NullSpaceParameters) -> Mapping[str, Any]:
        """Return the parameters of the filter, and whether other tensors are kept."""
        values = parameters.model_dump(mode="json", exclude={"scaling", "others"})
        return {**values, "others": "keep" if parameters.others == "keep" else "sum"}

    def absorb(self, tensor: TensorInput[NullSpaceParameters]) -> Absorbed:
        """Add the task vector, or keep the accumulated delta, as `others` says."""
        if tensor.parameters.others == "keep":
            return Absorbed(tensor.accumulated + 0.0)
        return Absorbed(tensor.accumulated + tensor.task_vector)

    def absorb_matrix(self, tensor: TensorInput[Any]) -> Absorbed:
        """Add the part of the task vector that does not act on the protected directions."""
        protected = leading_right(tensor.accumulated, tensor.parameters.rank)
        acting, kept = filtered(tensor.task_vector, protected)
        share = _share(acting, tensor.task_vector)
        return Absorbed(tensor.accumulated + kept, rank=len(protected), removed_share=share)

    def scale(self, norms: Norms, parameters: NullSpaceParameters) -> float:
        """Return 1, or λ_t with `scaling: adaptive`."""
        adaptive = isinstance(parameters, NullSpaceFilterParameters) and parameters.scaling == "adaptive"
        return adaptive_scale(norms) if adaptive else 1.0


class _DividingFilter(ReadsOthers, NullSpaceFilter):
    """The filter with `others: mean` or `adaptive`."""


class Nufilt(NullSpaceFilter):
    """NUFILT. A_1 = τ_1,  A_t = A_{t-1} + τ_t (P + B A) with P = I - V V^T,  θ_t = θ_0 + A_t.

    V holds the `rank` leading right singular vectors of D = A_{t-1}, W the `task_rank` leading ones of τ_t. Starting
    from a random A and B = 0, Adam minimizes
        L(A, B) = || τ W - (D + τ (P + B A)) W ||^2 + || D V - (D + τ (P + B A)) V ||^2,
    plasticity and stability. As P V = 0, the second term is || τ B A V ||^2. This follows the paper's abstract and the
    authors' released code, with one difference: at step 1 the code removes arbitrary directions (the SVD of a zero
    delta), while here the first task vector is added whole, as in every other method.
    """

    name = "nufilt"
    summary = "null-space filter with a trained low-rank adapter"
    source = "arXiv:2509.21413, null-space filtering with a projection-aware adapter"
    Parameters = NufiltParameters
    matrix_copies = 13
    square_copies = 1

    def dividing(self) -> Method:
        """Return the variant for `mean` and `adaptive`."""
        return _DividingNufilt()

    def absorb_matrix(self, tensor: TensorInput[Any]) -> Absorbed:
        """Filter the task vector, then add the part that the adapter recovers."""
        task_vector, parameters = tensor.task_vector, tensor.parameters
        protected = leading_right(tensor.accumulated, parameters.rank)
        _, kept = filtered(task_vector, protected)
        if len(protected) and bool(task_vector.any()):
            matched = leading_right(task_vector, parameters.task_rank)
            right, left = trained_adapter(tensor.accumulated, task_vector, protected, matched, parameters)
            kept += (task_vector @ left) @ right
        share = _share(task_vector - kept, task_vector)
        return Absorbed(tensor.accumulated + kept, rank=len(protected), removed_share=share)


class _DividingNufilt(ReadsOthers, Nufilt):
    """NUFILT with `others: mean` or `adaptive`."""


def filtered(task_vector: torch.Tensor, protected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return τ V and τ (I - V V^T); `protected` holds V^T, (k, n)."""
    acting = task_vector @ protected.T
    return acting, torch.addmm(task_vector, acting, protected, alpha=-1.0)


def trained_adapter(
    delta: torch.Tensor,
    task_vector: torch.Tensor,
    protected: torch.Tensor,
    matched: torch.Tensor,
    parameters: NufiltParameters,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A, (r, n), and B, (n, r), after the steps of Adam on the loss of `Nufilt`.

    `protected` and `matched` hold V^T and W^T: rows of unit length, (k, n).
    """
    count = task_vector.shape[1]
    # Everything is on the small side: the gradients need τ only as τ^T τ and as τ^T times the fixed residual.
    passed = matched - (matched @ protected.T) @ protected
    residual = (task_vector @ (matched - passed).T) - delta @ matched.T
    directions = torch.cat([matched, protected])
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


def leading_right(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the `rank` leading right singular vectors of a matrix as rows, fewer if the matrix has a lower rank."""
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
