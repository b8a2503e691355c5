"""Orthogonal projection-based continual merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hubmerge.linalg import Eigenpairs, RankRule, batched_eigenpairs, project
from hubmerge.linalg.projection import Diagonal, Precision
from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, TensorInput
from hubmerge.methods.others import OTHERS, Others, ReadsOthers, adaptive_scale
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor
from merge_recipes.shorthands import OPCM_FORMS, expanded


def _kind(value: object) -> str:
    return "word" if isinstance(value, str) else "number"


Share = Annotated[float, Field(ge=0.0, le=1.0), Tag("number")]
# The discriminator keeps the message about a wrong number free of the words that would also be allowed.
Alpha = Annotated[Share | Annotated[Literal["auto"], Tag("word")], Discriminator(_kind)]


class OpcmParameters(MethodParameters):
    """Parameters of `opcm`."""

    alpha: Annotated[Alpha, PerTensor()] = Field(
        0.5,
        description="share of the sum of singular values whose directions are protected; `auto` chooses the rank",
    )
    rank_rule: RankRule = Field(
        "paper", description="`fusion_bench` counts like the authors' code: one direction fewer"
    )
    diagonal: Diagonal = Field(
        "remove", description="`keep` removes only the protected block: faster, and stable over long streams"
    )
    precision: Precision = Field(
        "float64", description="precision of the projection; `float32` is faster and needs `diagonal: keep`"
    )

    others: Others = Field("adaptive", description=OTHERS)
    form: Literal["paper", "released", "stable"] | None = Field(
        None,
        description="shorthand for `diagonal` and `rank_rule`: `paper` as in the paper, `released` as in the code of "
        "its first version, `stable` keeps the diagonal with the paper's rank",
    )

    @model_validator(mode="before")
    @classmethod
    def _expand_form(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("form") not in OPCM_FORMS:
            return data
        for name, value in OPCM_FORMS[data["form"]].items():
            if data.get(name, value) != value:
                raise ValueError(f"form: {data['form']} stands for {name}: {value}, not {data[name]}: give only one")
        return expanded("opcm", data)

    @model_validator(mode="after")
    def _float32_needs_the_stable_form(self) -> OpcmParameters:
        if self.precision == "float32" and self.diagonal == "remove":
            raise ValueError("precision: float32 is too low while the diagonal is removed; add `diagonal: keep`")
        return self


class Opcm(Method):
    """OPCM. A_1 = τ_1,  A_t = A_{t-1} + U P V^T,  θ_t = θ_0 + A_t / λ_t,  λ_t = ||A_t|| / mean_{i<=t} ||τ_i||.

    U, V are the singular vectors of A_{t-1}, and P is U^T τ_t V without its diagonal and without its leading r x r
    block. The paper's recursion on the merged delta Δ_t = A_t / λ_t is the same: scaling a matrix changes neither its
    singular vectors nor the rank rule.
    """

    name = "opcm"
    summary = "orthogonal projection: adds what lies outside the directions already used"
    source = "arXiv:2501.09522, Section 4 (projection and adaptive time-varying scaling)"
    Parameters = OpcmParameters
    decomposes = True

    def variant_for(self, parameters: OpcmParameters) -> Method:
        """Return the variant that treats other tensors as `others` says."""
        return self if parameters.others == "adaptive" else _OpcmWithOthers()

    def state_parameters(self, parameters: OpcmParameters) -> Mapping[str, Any]:
        """Return the parameters of the projection."""
        return parameters.model_dump(mode="json", exclude={"others", "form"})

    def decompose(
        self, accumulated: Sequence[torch.Tensor], parameters: Sequence[OpcmParameters]
    ) -> Sequence[Eigenpairs | None]:
        """Return the eigenpairs of A A^T, which the projection in float64 starts from."""
        if any(one.precision == "float32" for one in parameters):
            return [None] * len(accumulated)
        return batched_eigenpairs(accumulated)

    def absorb(self, tensor: TensorInput[OpcmParameters]) -> Absorbed:
        """Add the task vector: only weight matrices have directions."""
        return Absorbed(tensor.accumulated + tensor.task_vector)

    def absorb_matrix(self, tensor: TensorInput[OpcmParameters]) -> Absorbed:
        """Add the part of the task vector outside the directions that the accumulated delta uses."""
        parameters = tensor.parameters
        projection = project(
            tensor.accumulated,
            tensor.task_vector,
            parameters.alpha,
            rank_rule=parameters.rank_rule,
            diagonal=parameters.diagonal,
            precision=parameters.precision,
            eigenpairs=tensor.decomposition,
        )
        # `kept` is memory of our own; adding in place saves a copy of the largest tensor.
        kept = projection.kept.add_(tensor.accumulated)
        return Absorbed(kept, rank=projection.rank, removed_share=projection.removed_share)

    def scale(self, norms: Norms, parameters: OpcmParameters) -> float:
        """Return λ_t, which makes the merged delta as long as the task vectors are on average."""
        return adaptive_scale(norms)


class _OpcmWithOthers(ReadsOthers, Opcm):
    """OPCM with another treatment of other tensors; the states are equal."""
