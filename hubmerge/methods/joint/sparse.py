"""Sums of task vectors with elements dropped at random, by rank, or at both ends: DARE, DELLA and Breadcrumbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hubmerge.methods.joint.base import JointParameters, TensorView
from hubmerge.methods.joint.draws import BitMasks, draws, limits
from hubmerge.methods.joint.ranks import ascending
from hubmerge.methods.joint.selection import cuts
from hubmerge.methods.joint.task_vectors import Kept, SparseParameters, TaskVectorSum, Whole, magnitudes_of
from hubmerge.support.lazy import np, torch
from merge_recipes import PerTensor

if TYPE_CHECKING:
    import numpy.typing as npt


class RescaledParameters(SparseParameters):
    """Parameters of a sum of sparse task vectors that are rescaled by default."""

    rescale: Annotated[bool, Whole] = Field(True, description="restore the L1 norm of each task vector")


class DareLinear(TaskVectorSum):
    """DARE: keep each element with probability `density`, rescale what is kept, and add.

    θ = θ_0 + λ Σ w_i f_i m_i ⊙ τ_i with independent m_i ~ Bernoulli(density) and f_i = |τ_i|_1 / |m_i ⊙ τ_i|_1, which
    is the 1 / density of the paper for large tensors. `rescale: false` leaves f_i out.
    """

    name = "dare_linear"
    summary = "sum of task vectors with elements dropped at random"
    source = "arXiv:2311.03099, Section 3.2"
    order_free = False  # each model has draws of its own
    Parameters = RescaledParameters

    def survey_model(self, view: TensorView, model: int, parameters: JointParameters[SparseParameters]) -> Kept:
        """Return whether all elements are kept, and the place of the masks that are drawn for the norm."""
        return Kept(everything=parameters.models[model].density >= 1.0, masks=BitMasks())

    def mask(
        self, delta: torch.Tensor, model: int, kept: Kept, parameters: JointParameters[SparseParameters]
    ) -> torch.Tensor:
        """Draw the mask of a block, or return the one that is drawn."""
        assert kept.masks is not None  # noqa: S101 - made by the survey
        start = parameters.start
        if start in kept.masks.bits:
            return kept.masks.read(start, delta)
        numbers = draws(parameters.seed, parameters.name, model, start, delta.numel())
        mask = torch.from_numpy(numbers < limits(parameters.models[model].density))
        if parameters.whole.rescale:
            kept.masks.add(start, mask)
        return mask.to(delta.device).view(delta.shape)


class DareTies(DareLinear):
    """DARE with the election of TIES: θ = θ_0 + λ Σ_agreeing w_i f_i m_i ⊙ τ_i, m_i and f_i as in `dare_linear`."""

    name = "dare_ties"
    summary = "task vectors with elements dropped at random, then the election of TIES"
    source = "arXiv:2311.03099, Section 3.2, with the election of arXiv:2306.01708"
    elects = True


class DellaParameters(RescaledParameters):
    """Parameters of `della_linear`."""

    epsilon: Annotated[float, PerTensor()] = Field(
        0.15, ge=0.0, description="largest difference between an element's probability to be kept and `density`"
    )


class DellaLinear(TaskVectorSum):
    """DELLA: keep larger elements with larger probability, rescale what is kept, and add.

    Element number r in ascending order of the d magnitudes of a row, from 0, is kept with probability
    density - ε + 2 ε r / (d - 1). Rows are along the last dimension. What is kept is rescaled as in `dare_linear`.
    """

    name = "della_linear"
    summary = "sum of task vectors with small elements dropped more often"
    source = "arXiv:2406.11617, Section 3.1 (MAGPRUNE)"
    order_free = False  # each model has draws of its own
    Parameters = DellaParameters
    blocks = "rows"

    def survey_model(self, view: TensorView, model: int, parameters: JointParameters[DellaParameters]) -> Kept:
        """Draw the mask of the whole tensor, because ranks take long to find."""
        own = parameters.models[model]
        if own.density >= 1.0:
            return Kept(everything=True)
        if own.density > 0.0 and not own.epsilon < min(own.density, 1.0 - own.density):
            raise ValueError(f"density {own.density} plus and minus epsilon {own.epsilon} must be between 0 and 1")
        masks, start = BitMasks(), 0
        for delta in view.deltas(model):
            numbers = draws(parameters.seed, parameters.name, model, start, delta.numel())
            masks.add(start, kept_by_rank(delta.abs_(), numbers, own.density, own.epsilon))
            start += delta.numel()
        return Kept(masks=masks)

    def mask(
        self, delta: torch.Tensor, model: int, kept: Kept, parameters: JointParameters[DellaParameters]
    ) -> torch.Tensor:
        """Return a block of the mask."""
        assert kept.masks is not None  # noqa: S101 - made by the survey
        return kept.masks.read(parameters.start, delta)


def kept_by_rank(magnitudes: torch.Tensor, numbers: npt.NDArray[Any], density: float, epsilon: float) -> torch.Tensor:
    """Return the mask of a matrix whose elements are kept with a probability that follows from their rank in their row.

    Args:
        magnitudes: the matrix.
        numbers: a draw for each element.
        density: mean of the probabilities; with 0, nothing is kept.
        epsilon: largest difference from it.
    """
    if density <= 0.0:
        return torch.zeros(magnitudes.shape, dtype=torch.bool)
    columns = magnitudes.shape[-1]
    step = 2.0 * epsilon / max(columns - 1, 1)
    chances = torch.arange(columns, dtype=torch.float32).mul_(step).add_(density - epsilon)
    below = torch.from_numpy(limits(chances).astype(np.int32))
    order = ascending(magnitudes).cpu()
    sorted_draws = torch.from_numpy(numbers.view(np.int32)).view(magnitudes.shape).gather(-1, order)
    return torch.empty(magnitudes.shape, dtype=torch.bool).scatter_(-1, order, sorted_draws < below)


class DellaTiesParameters(DellaParameters):
    """Parameters of `della`."""

    normalize: Annotated[bool, Whole] = Field(True, description="divide by the sum of the weights that agree")


class Della(DellaLinear):
    """DELLA with the election of TIES, and the mean of the terms that agree."""

    name = "della"
    summary = "task vectors with small elements dropped more often, then the election of TIES"
    source = "arXiv:2406.11617, Section 3 (drop, elect, fuse)"
    Parameters = DellaTiesParameters
    elects = True


class BreadcrumbsParameters(SparseParameters):
    """Parameters of `breadcrumbs`."""

    gamma: Annotated[float, PerTensor()] = Field(
        0.01, ge=0.0, le=1.0, description="share of elements dropped because they are the largest"
    )


class Breadcrumbs(TaskVectorSum):
    """Model Breadcrumbs: drop the largest and the smallest elements of each task vector, and add.

    Of d magnitudes the int(gamma d) largest are dropped, then the smallest until int(density d) are left. If fewer than
    that would be left, fewer of the largest are dropped.
    """

    name = "breadcrumbs"
    summary = "sum of task vectors without their largest and smallest elements"
    source = "arXiv:2312.06795, Section 3 (sparse masks of layers)"
    Parameters = BreadcrumbsParameters

    def survey_model(self, view: TensorView, model: int, parameters: JointParameters[BreadcrumbsParameters]) -> Kept:
        """Return the two cuts."""
        own, total = parameters.models[model], view.elements
        if own.density >= 1.0:
            return Kept(everything=True)
        kept = int(own.density * total)
        smallest = max(0, total - kept - int(own.gamma * total))
        low, high = cuts(magnitudes_of(view, model), [total - smallest, total - smallest - kept], total)
        return Kept(low, high)

    def mask(
        self, delta: torch.Tensor, model: int, kept: Kept, parameters: JointParameters[BreadcrumbsParameters]
    ) -> torch.Tensor:
        """Return the mask of the magnitudes between the cuts."""
        assert kept.high is not None  # noqa: S101 - made by the survey
        magnitudes = delta.abs()
        above_low = kept.low.above(magnitudes, parameters.start)
        return above_low.logical_xor_(kept.high.above(magnitudes, parameters.start))


class BreadcrumbsTies(Breadcrumbs):
    """Model Breadcrumbs with the election of TIES."""

    name = "breadcrumbs_ties"
    summary = "task vectors without their largest and smallest elements, then the election of TIES"
    source = "arXiv:2312.06795, Section 3, with the election of arXiv:2306.01708"
    elects = True
