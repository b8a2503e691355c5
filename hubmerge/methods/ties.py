"""TIES: trim, elect signs, merge; the continual form here, mergekit's in `hubmerge.methods.mergekit_ties`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hubmerge.errors import HubmergeError
from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, Sweep, not_without
from hubmerge.methods.mergekit_ties import MergekitTies
from hubmerge.methods.selection import Magnitudes, kth_smallest_magnitudes
from hubmerge.methods.task_arithmetic import check_one_form
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

DENSITY = 0.2
"""Of the continual form, where none is given."""


class TiesParameters(MethodParameters):
    """Parameters of `ties`: `density` and `scaling`, or mergekit's `weight` with what belongs to it."""

    density: Annotated[float | None, PerTensor()] = Field(
        None, gt=0.0, le=1.0, description="share of the elements kept, the largest ones; 0.2, in mergekit's form 1"
    )
    scaling: Annotated[float, PerTensor()] = Field(
        0.3, description="what each merged task vector is multiplied with before it is added"
    )
    weight: Annotated[float | None, PerTensor()] = Field(
        None, description="mergekit's form: weight of an entry, for each its own"
    )
    normalize: bool = Field(True, description="mergekit's form: divide by the sum of the weights that agree")
    lambda_: float = Field(
        1.0, alias="lambda", description="mergekit's form: what the merged task vector is multiplied with"
    )
    int8_mask: bool = Field(False, description="mergekit's form: there it saves memory; here it has no effect")

    @model_validator(mode="after")
    def _one_form(self) -> TiesParameters:
        check_one_form(self.model_fields_set, self.weight, {"scaling"}, {"normalize", "lambda_", "int8_mask"})
        return self


class Ties:
    """Continual TIES in the form of the OPCM authors' experiments. Δ_t = Δ_{t-1} + c M(Δ_{t-1}, τ_t).

    M trims both to their largest elements over the whole model, takes for each element the sign of the sum of
    what is left, and adds up what has that sign. With d elements, what is kept is at least as large as the
    element number d - floor(density d) in ascending order of magnitude. An element whose two values cancel
    exactly takes the sign that the majority of all elements has, and the negative one without a majority.
    The accumulated delta is Δ itself, so the scale is 1. The first task vector is added untrimmed.

    A recipe that gives weights asks for mergekit's form instead, which sees all task vectors together.
    """

    name = "ties"
    source = "arXiv:2306.01708, Algorithm 1; in the continual form of arXiv:2501.09522, Section 5"
    Parameters = TiesParameters

    def chosen(self, parameters: TiesParameters) -> Method:
        """Mergekit's form where there is a weight, else the continual one."""
        return self if parameters.weight is None else MergekitTies(TiesParameters)

    def surveyed(self, sweep: Sweep, parameters: TiesParameters, *, step: int) -> Method:
        """Find the two thresholds of the whole model and the sign of its majority; step 1 needs neither."""
        density = _density(parameters)
        if step == 1:
            return _SurveyedTies(density, Magnitudes(0.0, 0.0), positive_majority=False)
        thresholds = kth_smallest_magnitudes(sweep, density)
        balance = sum(sweep(lambda accumulated, task_vector: _signs(accumulated, task_vector, thresholds)))
        return _SurveyedTies(density, thresholds, positive_majority=balance > 0)

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> Absorbed:
        """Not before `surveyed`."""
        raise not_without("surveyed()")

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> torch.Tensor:
        """Not before `surveyed`."""
        raise not_without("surveyed()")

    def scale(self, norms: Norms, parameters: TiesParameters) -> float:
        """The accumulated delta is the merged delta."""
        return 1.0


@dataclass(frozen=True)
class _SurveyedTies(Ties):
    """One step of `Ties`, with what has to be known of the whole model."""

    elementwise: ClassVar[Literal[True]] = True

    density: float
    thresholds: Magnitudes
    positive_majority: bool

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> Absorbed:
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> torch.Tensor:
        if _density(parameters) != self.density:
            raise HubmergeError(
                f"ties: density {_density(parameters)} for some tensors and {self.density} for others",
                hint="the continual form trims over the whole model: give one density, or one for each entry",
            )
        if step == 1:
            return accumulated + parameters.scaling * task_vector
        first, second = _trimmed(accumulated, task_vector, self.thresholds)
        signs = torch.sign(first + second)
        positive = signs > 0 if not self.positive_majority else signs >= 0
        merged = torch.where((first > 0) == positive, first, 0.0) + torch.where((second > 0) == positive, second, 0.0)
        return accumulated + parameters.scaling * merged


def _density(parameters: TiesParameters) -> float:
    return DENSITY if parameters.density is None else parameters.density


def _trimmed(
    accumulated: torch.Tensor, task_vector: torch.Tensor, thresholds: Magnitudes
) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.where(accumulated.abs() >= thresholds.accumulated, accumulated, 0.0),
        torch.where(task_vector.abs() >= thresholds.task_vector, task_vector, 0.0),
    )


def _signs(accumulated: torch.Tensor, task_vector: torch.Tensor, thresholds: Magnitudes) -> int:
    first, second = _trimmed(accumulated, task_vector, thresholds)
    return int(torch.sign(first + second).sum())
