"""TIES: trim, elect signs, merge. The continual form is here, mergekit's in `hubmerge.methods.mergekit_ties`."""

from __future__ import annotations

from dataclasses import dataclass

from hubmerge.errors import HubmergeError
from hubmerge.methods.base import Absorbed, Method, Sweep, TensorInput
from hubmerge.methods.mergekit_ties import MergekitTies, TiesParameters
from hubmerge.methods.selection import Magnitudes, kth_smallest_magnitudes
from hubmerge.support.lazy import torch

DENSITY = 0.2
"""Density of the continual form if the recipe gives none."""


@dataclass(frozen=True)
class Survey:
    """Facts about the whole model that one step of continual TIES needs."""

    density: float
    thresholds: Magnitudes
    positive_majority: bool


class Ties(Method):
    """Continual TIES in the form of the OPCM authors' experiments. Δ_t = Δ_{t-1} + c M(Δ_{t-1}, τ_t).

    M trims both inputs to their largest elements over the whole model, takes for each element the sign of the sum of
    what is left, and adds the values with that sign. With d elements, an element is kept if it is at least as large as
    element number d - floor(density d) in ascending order of magnitude. If the two values of an element cancel exactly,
    it gets the sign of the majority of all elements, or the negative sign if there is no majority. The accumulated
    delta is Δ itself, so the scale is 1. The first task vector is added untrimmed.

    A recipe with weights selects mergekit's form, which uses all task vectors together.

    Args:
        survey: the facts that `prepare_step` found. Without them, `absorb` treats its tensor as the whole model.
    """

    name = "ties"
    summary = "trim small changes, elect signs, add what agrees"
    source = "arXiv:2306.01708, Algorithm 1; in the continual form of arXiv:2501.09522, Section 5"
    Parameters = TiesParameters
    elementwise = True
    surveys_model = True

    def __init__(self, survey: Survey | None = None) -> None:
        self._survey = survey

    def statistic_weight(self, parameters: TiesParameters) -> float:
        """Return the weight of an entry, or its factor."""
        return parameters.scaling if parameters.weight is None else parameters.weight

    def variant_for(self, parameters: TiesParameters) -> Method:
        """Return mergekit's form if there is a weight, else the continual form."""
        return self if parameters.weight is None else MergekitTies()

    def prepare_step(self, sweep: Sweep, parameters: TiesParameters, *, step: int) -> Ties:
        """Find the two thresholds of the whole model and the sign of its majority; step 1 needs neither."""
        density = _density(parameters)
        if step == 1:
            return Ties(Survey(density, Magnitudes(0.0, 0.0), positive_majority=False))
        thresholds = kth_smallest_magnitudes(sweep, density)
        balance = sum(sweep(lambda accumulated, task_vector: _signs(accumulated, task_vector, thresholds)))
        return Ties(Survey(density, thresholds, positive_majority=balance > 0))

    def absorb(self, tensor: TensorInput[TiesParameters]) -> Absorbed:
        """Add what is left of the task vector after trimming and electing signs.

        Raises:
            HubmergeError: the density of this tensor is not that of the whole model.
        """
        accumulated, task_vector, parameters = tensor.accumulated, tensor.task_vector, tensor.parameters
        if self._survey is None:
            prepared = self.prepare_step(lambda look: [look(accumulated, task_vector)], parameters, step=tensor.step)
            return prepared.absorb(tensor)
        if _density(parameters) != self._survey.density:
            raise HubmergeError(
                f"ties: density {_density(parameters)} for some tensors and {self._survey.density} for others",
                hint="the continual form trims over the whole model: give one density, or one for each entry",
            )
        if tensor.step == 1:
            return Absorbed(accumulated + parameters.scaling * task_vector)
        first, second = _trimmed(accumulated, task_vector, self._survey.thresholds)
        signs = torch.sign(first + second)
        positive = signs >= 0 if self._survey.positive_majority else signs > 0
        merged = torch.where((first > 0) == positive, first, 0.0) + torch.where((second > 0) == positive, second, 0.0)
        return Absorbed(accumulated + parameters.scaling * merged)


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
