"""Continual TIES: trim, elect signs, merge, one checkpoint after another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field

from hubmerge.methods.base import Absorbed, Method, MethodParameters, Norms, Sweep
from hubmerge.methods.selection import Magnitudes, kth_smallest_magnitudes


class TiesParameters(MethodParameters):
    """Parameters of `ties`."""

    density: float = Field(0.2, gt=0.0, le=1.0, description="share of the elements kept, the largest ones")
    scaling: float = Field(0.3, description="what each merged task vector is multiplied with before it is added")


class Ties:
    """Continual TIES in the form of the OPCM authors' experiments. Δ_t = Δ_{t-1} + c M(Δ_{t-1}, τ_t).

    M trims both to their largest elements over the whole model, takes for each element the sign of the sum of
    what is left, and adds up what has that sign. With d elements, what is kept is at least as large as the
    element number d - floor(density d) in ascending order of magnitude. An element whose two values cancel
    exactly takes the sign that the majority of all elements has, and the negative one without a majority.
    The accumulated delta is Δ itself, so the scale is 1. The first task vector is added untrimmed.
    """

    name = "ties"
    source = "arXiv:2306.01708, Algorithm 1; in the continual form of arXiv:2501.09522, Section 5"
    Parameters = TiesParameters

    def surveyed(self, sweep: Sweep, parameters: TiesParameters, *, step: int) -> Method:
        """Find the two thresholds of the whole model and the sign of its majority; step 1 needs neither."""
        if step == 1:
            return _SurveyedTies(Magnitudes(0.0, 0.0), positive_majority=False)
        thresholds = kth_smallest_magnitudes(sweep, parameters.density)
        balance = sum(sweep(lambda accumulated, task_vector: _signs(accumulated, task_vector, thresholds)))
        return _SurveyedTies(thresholds, positive_majority=balance > 0)

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> Absorbed:
        """Not before `surveyed`."""
        raise NotImplementedError("ties trims over the whole model: call surveyed() first and use what it returns")

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> torch.Tensor:
        """Not before `surveyed`."""
        raise NotImplementedError("ties trims over the whole model: call surveyed() first and use what it returns")

    def scale(self, norms: Norms, parameters: TiesParameters) -> float:
        """The accumulated delta is the merged delta."""
        return 1.0


@dataclass(frozen=True)
class _SurveyedTies(Ties):
    """One step of `Ties`, with what has to be known of the whole model."""

    thresholds: Magnitudes
    positive_majority: bool

    def absorb(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> Absorbed:
        return Absorbed(self.absorb_other(accumulated, task_vector, parameters, step=step))

    def absorb_other(
        self, accumulated: torch.Tensor, task_vector: torch.Tensor, parameters: TiesParameters, *, step: int
    ) -> torch.Tensor:
        if step == 1:
            return accumulated + parameters.scaling * task_vector
        first, second = _trimmed(accumulated, task_vector, self.thresholds)
        signs = torch.sign(first + second)
        positive = signs > 0 if not self.positive_majority else signs >= 0
        merged = torch.where((first > 0) == positive, first, 0.0) + torch.where((second > 0) == positive, second, 0.0)
        return accumulated + parameters.scaling * merged


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
