"""Task arithmetic: the continual form, and mergekit's form with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from hubmerge.methods.base import Absorbed, Method, MethodParameters, TensorInput
from hubmerge.methods.weighted_mean import SUM_OF_WEIGHTS, mean_of_both, weighted_mean
from merge_recipes import PerTensor


class TaskArithmeticParameters(MethodParameters):
    """Parameters of `task_arithmetic`: `scaling`, or mergekit's `weight` with `normalize` and `lambda`."""

    scaling: Annotated[float, PerTensor()] = Field(0.3, description="factor of each task vector")
    weight: Annotated[float | None, PerTensor()] = Field(
        None, description="mergekit's form: weight of an entry; each entry may have its own"
    )
    normalize: bool = Field(False, description="mergekit's form: divide by the sum of the weights")
    lambda_: float = Field(1.0, alias="lambda", description="mergekit's form: factor of the merged task vector")

    @model_validator(mode="after")
    def _one_form(self) -> TaskArithmeticParameters:
        check_one_form(self.model_fields_set, self.weight, {"scaling"}, {"normalize", "lambda_"})
        return self


def check_one_form(given: set[str], weight: float | None, continual: set[str], mergekit: set[str]) -> None:
    """Raise if parameters of the continual form are given with a weight, or those of mergekit's form without one.

    Args:
        given: names of the parameters that the recipe gives.
        weight: the weight of the entry, None if there is none.
        continual: names that belong to the continual form only.
        mergekit: names that belong to mergekit's form only.

    Raises:
        ValueError: the two forms are mixed.
    """
    if weight is not None and given & continual:
        name = min(given & continual)
        raise ValueError(f"{name} belongs to the continual form and weight to mergekit's form: give only one of them")
    if weight is None and given & mergekit:
        name = min(given & mergekit).rstrip("_")
        raise ValueError(f"{name} belongs to mergekit's form, which needs a `weight` for every entry")


class TaskArithmetic(Method):
    """Continual task arithmetic. θ_t = θ_{t-1} + c τ_t, hence A_t = A_{t-1} + c τ_t and θ_t = θ_0 + A_t.

    The factor is inside the sum, so every checkpoint and every tensor may have its own. A recipe with weights selects
    mergekit's form: θ_t = θ_0 + λ Σ w_i τ_i, divided by Σ w_i with `normalize`.
    """

    name = "task_arithmetic"
    summary = "sum of the task vectors, each with a factor"
    source = "arXiv:2212.04089, Section 2 (addition); one at a time as in arXiv:2501.09522, Section 5"
    Parameters = TaskArithmeticParameters
    elementwise = True
    revokes = True
    adds = True
    order_free = True

    def statistic_weight(self, parameters: TaskArithmeticParameters) -> float:
        """Return the weight of an entry, or its factor."""
        return parameters.scaling if parameters.weight is None else parameters.weight

    def variant_for(self, parameters: TaskArithmeticParameters) -> Method:
        """Return the form that saves the sum of the weights, if the recipe normalizes by it."""
        return _WeightedMean() if parameters.weight is not None and parameters.normalize else self

    def absorb(self, tensor: TensorInput[TaskArithmeticParameters]) -> Absorbed:
        """Add the task vector times its factor."""
        parameters = tensor.parameters
        factor = parameters.scaling if parameters.weight is None else parameters.lambda_ * parameters.weight
        return Absorbed(tensor.accumulated + tensor.sign * factor * tensor.task_vector)


class _WeightedMean(TaskArithmetic):
    """mergekit's form with `normalize`."""

    def state_parts(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        return {SUM_OF_WEIGHTS: ()}

    def absorb(self, tensor: TensorInput[TaskArithmeticParameters]) -> Absorbed:
        parameters = tensor.parameters
        if parameters.weight is None:
            raise ValueError("a weight is missing")
        return weighted_mean(tensor, parameters.lambda_ * tensor.task_vector, tensor.sign * parameters.weight)

    def add(self, one: Absorbed, other: Absorbed) -> Absorbed:
        return mean_of_both(one, other)
