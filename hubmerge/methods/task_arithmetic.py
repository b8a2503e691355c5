"""Task arithmetic, one checkpoint after another: the continual form, and mergekit's with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, PartedTensor
from hubmerge.methods.folding import PartedFold, weighted_mean
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor


class TaskArithmeticParameters(MethodParameters):
    """Parameters of `task_arithmetic`: `scaling`, or mergekit's `weight` with `normalize` and `lambda`."""

    scaling: Annotated[float, PerTensor()] = Field(0.3, description="what each task vector is multiplied with")
    weight: Annotated[float | None, PerTensor()] = Field(
        None, description="mergekit's form: weight of an entry, for each its own"
    )
    normalize: bool = Field(False, description="mergekit's form: divide by the sum of the weights")
    lambda_: float = Field(
        1.0, alias="lambda", description="mergekit's form: what the merged task vector is multiplied with"
    )

    @model_validator(mode="after")
    def _one_form(self) -> TaskArithmeticParameters:
        check_one_form(self.model_fields_set, self.weight, {"scaling"}, {"normalize", "lambda_"})
        return self


def check_one_form(given: set[str], weight: float | None, continual: set[str], mergekit: set[str]) -> None:
    """Refuse parameters of the continual form beside a weight, and those of mergekit's form without one.

    Raises:
        ValueError: both forms are mixed.
    """
    if weight is not None and given & continual:
        name = min(given & continual)
        raise ValueError(f"{name} belongs to the continual form and weight to mergekit's: give one of them")
    if weight is None and given & mergekit:
        name = min(given & mergekit).rstrip("_")
        raise ValueError(f"{name} belongs to mergekit's form, which needs a weight for every entry")


class TaskArithmetic:
    """Continual task arithmetic. θ_t = θ_{t-1} + c τ_t, hence A_t = A_{t-1} + c τ_t and θ_t = θ_0 + A_t.

    The factor is inside the sum, so that every checkpoint and every tensor may have its own. A recipe that gives
    weights asks for mergekit's form: θ_t = θ_0 + λ Σ w_i τ_i, divided by Σ w_i with `normalize`.
    """

    name = "task_arithmetic"
    source = "arXiv:2212.04089, Section 2 (addition); taken one by one as in arXiv:2501.09522, Section 5"
    Parameters = TaskArithmeticParameters
    elementwise: Literal[True] = True

    def chosen(self, parameters: TaskArithmeticParameters) -> Method:
        """Mergekit's form with `normalize` needs the sum of the weights; a plain sum needs nothing."""
        return _WeightedMean() if parameters.weight is not None and parameters.normalize else self

    def absorb(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: TaskArithmeticParameters,
        *,
        step: int,
    ) -> Absorbed:
        """The weighted sum."""
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self,
        accumulated: torch.Tensor,
        task_vector: torch.Tensor,
        parameters: TaskArithmeticParameters,
        *,
        step: int,
    ) -> torch.Tensor:
        """The weighted sum."""
        weight = parameters.weight
        return accumulated + (parameters.scaling if weight is None else parameters.lambda_ * weight) * task_vector

    def scale(self, norms: Norms, parameters: TaskArithmeticParameters) -> float:
        """Nothing is left to divide by."""
        return 1.0


class _WeightedMean(PartedFold):
    """mergekit's form with `normalize`."""

    name = TaskArithmetic.name
    source = TaskArithmetic.source
    Parameters = TaskArithmeticParameters
    elementwise: Literal[True] = True

    def parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {"weight": ()}

    def absorb_parts(
        self,
        accumulated: torch.Tensor,
        parts: Mapping[str, torch.Tensor],
        task_vector: torch.Tensor,
        parameters: TaskArithmeticParameters,
        *,
        step: int,
    ) -> PartedTensor:
        if parameters.weight is None:
            raise ValueError("a weight is missing")
        return weighted_mean(accumulated, parts, parameters.lambda_ * task_vector, parameters.weight)
