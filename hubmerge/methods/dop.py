"""Dual orthogonal projection: a compromise that is nearest to each model where that model acts most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from hubmerge.linalg import singular_directions
from hubmerge.methods.adam import Adam
from hubmerge.methods.base import Absorbed, Method, MethodParameters, TensorInput
from hubmerge.support.lazy import torch

_SMALLEST_SHARE = 0.001
"""Distance of the weights of the two-task problem from 0 and 1, as in the solver that the authors use."""


class DopParameters(MethodParameters):
    """Parameters of `dop`."""

    alpha: float = Field(0.8, ge=0.0, le=1.0, description="initial weight of what was merged before")
    beta: float = Field(0.999, ge=0.0, le=1.0, description="how slowly that weight follows the multi-objective weight")
    share: float = Field(
        0.99999, gt=0.0, le=1.0, description="share of the singular values' sum whose directions count"
    )
    space: Literal["left", "right", "both"] = Field("both", description="singular vectors that are projected on")
    steps: int = Field(200, ge=0, description="steps of Adam per matrix")
    learning_rate: float = Field(1e-4, gt=0.0, description="step size of Adam")


class Dop(Method):
    """DOP. Δ_1 = τ_1; later, Adam starts from (Δ_{t-1} + τ_t) / 2 for each weight matrix and minimizes two losses.

        w L(Δ; Δ_{t-1}) + (1 - w) L(Δ; τ_t),   L(Δ; X) = || S U^T (Δ - X) ||^2 + || (Δ - X) V S ||^2,

    U S V^T is the leading part of the SVD of X, so differences count where X acts. w is a moving average, starting at
    `alpha`, of the weights that minimize the norm of the combined gradient (MGDA, arXiv:1810.04650), after each
    gradient is divided by its loss. All other tensors are averaged: Δ_t = (Δ_{t-1} + τ_t) / 2. This follows the
    authors' released code.
    """

    name = "dop"
    summary = "optimized compromise between the merged model and each checkpoint"
    source = (
        "Yang et al., NeurIPS 2025 (openreview.net/forum?id=zD5cUX67b9); as released in FusionBench, arXiv:2406.03280"
    )
    Parameters = DopParameters
    matrix_copies = 60
    square_copies = 2

    def absorb(self, tensor: TensorInput[DopParameters]) -> Absorbed:
        """Average the two; at step 1, take the task vector."""
        total = tensor.accumulated + tensor.task_vector
        return Absorbed(total if tensor.step == 1 else 0.5 * total)

    def absorb_matrix(self, tensor: TensorInput[DopParameters]) -> Absorbed:
        """Minimize the two losses; if one of the two matrices is zero, average them."""
        accumulated, task_vector, parameters = tensor.accumulated, tensor.task_vector, tensor.parameters
        if tensor.step == 1 or not bool(accumulated.any()) or not bool(task_vector.any()):
            return self.absorb(tensor)
        # Both losses are of fourth order in the elements, which float64 still holds.
        goals = [_Goal.of(accumulated, parameters), _Goal.of(task_vector, parameters)]
        adam = Adam(0.5 * (accumulated + task_vector), parameters.learning_rate)
        weight = parameters.alpha
        for _ in range(parameters.steps):
            gradients = [goal.gradient(adam.value) for goal in goals]
            losses = [goal.loss(adam.value, gradient) for goal, gradient in zip(goals, gradients, strict=True)]
            normalized = [
                gradient / loss if loss > 0.0 else gradient for gradient, loss in zip(gradients, losses, strict=True)
            ]
            weight = parameters.beta * weight + (1.0 - parameters.beta) * shortest_combination(*normalized)
            adam.step(weight * gradients[0] + (1.0 - weight) * gradients[1])
        return Absorbed(adam.value)


@dataclass(frozen=True)
class _Goal:
    """A target X with the matrices U S^2 U^T and V S^2 V^T that weigh differences from it; None for an unused space."""

    target: torch.Tensor
    left: torch.Tensor | None
    right: torch.Tensor | None

    @classmethod
    def of(cls, target: torch.Tensor, parameters: DopParameters) -> _Goal:
        wide = target.shape[0] <= target.shape[1]
        directions = singular_directions(target if wide else target.T.contiguous())
        reached = torch.cumsum(directions.values, 0) / directions.values.sum()
        rank = int((reached < parameters.share).sum())
        short = directions.left[:, :rank] * directions.values[:rank]
        long = directions.right[:rank].T * directions.values[:rank]
        left, right = (short, long) if wide else (long, short)
        return cls(
            target,
            None if parameters.space == "right" else left @ left.T,
            None if parameters.space == "left" else right @ right.T,
        )

    def gradient(self, value: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the loss at `value`."""
        difference = value - self.target
        total = torch.zeros_like(difference)
        if self.left is not None:
            total += self.left @ difference
        if self.right is not None:
            total += difference @ self.right
        return 2.0 * total

    def loss(self, value: torch.Tensor, gradient: torch.Tensor) -> float:
        """Return the loss, which is quadratic: half the inner product of difference and gradient."""
        return 0.5 * float(torch.sum((value - self.target) * gradient))


def shortest_combination(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the weight w in (0, 1) that minimizes the norm of w first + (1 - w) second."""
    a, b, c = (float(torch.sum(x * y)) for x, y in ((first, first), (first, second), (second, second)))
    if b >= a:
        return 1.0 - _SMALLEST_SHARE
    if b >= c:
        return _SMALLEST_SHARE
    return (c - b) / (a + c - 2.0 * b)
