"""Orthogonal projection-based continual merging, and its scaling alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hubmerge.linalg import Eigenpairs, RankRule, eigenpairs_together, project
from hubmerge.linalg.projection import Diagonal, Precision
from hubmerge.methods.base import Absorbed, MethodParameters, NoParameters, Norms
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor


def _kind(value: object) -> str:
    return "word" if isinstance(value, str) else "number"


Share = Annotated[float, Field(ge=0.0, le=1.0), Tag("number")]
# Told apart by their kind, so that a wrong number is not also told to be none of the words.
Alpha = Annotated[Share | Annotated[Literal["auto"], Tag("word")], Discriminator(_kind)]


class OpcmParameters(MethodParameters):
    """Parameters of `opcm`."""

    alpha: Annotated[Alpha, PerTensor()] = Field(
        0.5,
        description="share of the singular values' sum whose directions are protected; `auto` finds the rank itself",
    )
    rank_rule: RankRule = Field(
        "paper", description="`fusion_bench` counts as the authors' code does: one direction fewer"
    )
    diagonal: Diagonal = Field(
        "remove", description="`keep` takes out the protected block only: cheaper, stable over long streams"
    )
    precision: Precision = Field(
        "float64", description="of the projection's arithmetic; `float32` is faster, for `diagonal: keep` alone"
    )
    svd: Literal["exact", "truncated"] = Field(
        "exact", description="`truncated` leaves the diagonal of small directions as it is, and reports the error"
    )
    svd_share: float = Field(
        0.9, gt=0.0, le=1.0, description="share of the singular values' sum that `svd: truncated` works with"
    )

    @model_validator(mode="after")
    def _single_is_for_the_stable_form(self) -> OpcmParameters:
        if self.precision == "float32" and self.diagonal == "remove":
            raise ValueError("precision: float32 is not enough where the diagonal is removed; add `diagonal: keep`")
        return self


class Opcm:
    """OPCM. A_1 = τ_1,  A_t = A_{t-1} + U P V^T,  θ_t = θ_0 + A_t / λ_t,  λ_t = ||A_t|| / mean_{i<=t} ||τ_i||.

    U, V are the singular vectors of A_{t-1} and P is U^T τ_t V without its diagonal and without its leading
    r x r block. The recursion of the paper on the merged delta Δ_t = A_t / λ_t is the same: scaling a matrix
    changes neither its singular vectors nor the rank rule.
    """

    name = "opcm"
    source = "arXiv:2501.09522, Section 4 (projection and adaptive time-varying scaling)"
    Parameters = OpcmParameters

    def decompose(
        self, accumulated: Sequence[torch.Tensor], parameters: Sequence[OpcmParameters]
    ) -> Sequence[Eigenpairs | None]:
        """The eigenpairs of A A^T, with which the projection begins in float64."""
        if any(one.precision == "float32" for one in parameters):
            return [None] * len(accumulated)
        return eigenpairs_together(accumulated)

    def absorb(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: OpcmParameters,
        *,
        step: int,
        decomposition: Eigenpairs | None = None,
    ) -> Absorbed:
        """Add what of the task vector lies outside the directions that the accumulated delta has taken."""
        projection = project(
            accumulated,
            task_vector,
            parameters.alpha,
            rank_rule=parameters.rank_rule,
            diagonal=parameters.diagonal,
            truncate=parameters.svd_share if parameters.svd == "truncated" else None,
            precision=parameters.precision,
            eigenpairs=decomposition,
        )
        # `kept` is our own memory, and adding in place spares one more copy of the largest tensor.
        kept = projection.kept.add_(accumulated)
        return Absorbed(kept, projection.rank, projection.removed_share, projection.error)

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: OpcmParameters, *, step: int
    ) -> torch.Tensor:
        """The sum: only weight matrices have directions."""
        return accumulated + task_vector

    def scale(self, norms: Norms, parameters: OpcmParameters) -> float:
        """λ_t, which makes the merged delta as long as the task vectors are on average."""
        return adaptive_scale(norms)


class AdaptiveScale:
    """The sum of the task vectors, scaled as OPCM does it, without the projection: OPCM's own ablation."""

    name = "adaptive_scale"
    source = "arXiv:2501.09522, Section 4 (adaptive time-varying scaling alone)"
    Parameters = NoParameters
    elementwise: Literal[True] = True

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NoParameters, *, step: int
    ) -> Absorbed:
        """A_t = A_{t-1} + τ_t."""
        return Absorbed(accumulated + task_vector)

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: NoParameters, *, step: int
    ) -> torch.Tensor:
        """A_t = A_{t-1} + τ_t."""
        return accumulated + task_vector

    def scale(self, norms: Norms, parameters: NoParameters) -> float:
        """λ_t = ||A_t|| / mean_{i<=t} ||τ_i||."""
        return adaptive_scale(norms)


def adaptive_scale(norms: Norms) -> float:
    """λ_t = ||A_t|| / mean_{i<=t} ||τ_i||, exactly 1 for a stream of one, and 1 where nothing moved at all."""
    if len(norms.task_vectors) == 1 or norms.accumulated == 0.0:
        return 1.0
    mean = sum(norms.task_vectors) / len(norms.task_vectors)
    return norms.accumulated / mean
