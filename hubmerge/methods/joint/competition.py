"""PCB-Merging: weights of single elements, from the competition between task vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from hubmerge.methods.base import MethodParameters
from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.elementwise import task_vectors
from hubmerge.methods.joint.selection import order_statistics
from hubmerge.support.lazy import torch
from merge_recipes import PerTensor

Whole = PerTensor(entries=False)

CLIPPED = 0.0001
"""Share of magnitudes at either end that are moved to the next one, as in the authors' code."""


class PcbParameters(MethodParameters):
    """Parameters of `pcb`."""

    density: Annotated[float, Whole] = Field(
        0.1, gt=0.0, le=1.0, description="share of elements of each task vector that are kept, those of largest score"
    )
    lambda_: Annotated[float, Whole] = Field(1.0, alias="lambda", description="factor of the merged task vector")


@dataclass(frozen=True)
class _Ranges:
    """Smallest and largest magnitude of a task vector, then smallest and largest score that count."""

    low: float
    high: float
    least: float = 0.0
    most: float = 0.0


class Pcb(JointMethod):
    """PCB-Merging. θ = θ_0 + λ Σ β_i ⊙ τ_i / Σ β_i, where β_i is the score of each element among its tensor.

    The score of task i is exp(n N(|τ_i|)²) ⊙ tanh(τ_i ⊙ Σ_j τ_j), with n tasks and N(x) = (x - min) / (max - min), and
    β_i is N of the scores, zero for all but the `density` largest. As in the authors' code, but for each tensor
    instead of the whole model: memory then does not grow with the model.
    """

    name = "pcb"
    summary = "elements weighted by their competition within and between task vectors"
    source = "arXiv:2410.02396, Section 3.2, as in the authors' code"
    Parameters = PcbParameters
    blocks = "elements"

    def survey(self, view: TensorView, parameters: JointParameters[PcbParameters]) -> list[_Ranges]:
        """Return the ranges of magnitudes and scores of each task vector."""
        total = view.elements
        if total == 0:
            return [_Ranges(0.0, 0.0)] * view.count
        ends = [int(total * CLIPPED), max(int(total * (1.0 - CLIPPED) - 1), 0)]
        magnitudes = [
            _Ranges(*order_statistics(lambda model=model: (d.abs_() for d in view.deltas(model)), ends, total))  # type: ignore[misc]
            for model in range(view.count)
        ]
        place = min(int(total * (1.0 - parameters.whole.density)), total - 1)
        return [self._with_scores(view, model, magnitudes, place) for model in range(view.count)]

    def _with_scores(self, view: TensorView, model: int, ranges: Sequence[_Ranges], place: int) -> _Ranges:
        def scores() -> Iterator[torch.Tensor]:
            for base, tensors in view.blocks():
                yield _scores(task_vectors(base, tensors), ranges)[model].to(torch.float64)

        smallest = min(float(block.min()) for block in scores() if block.numel())
        largest = max(float(block.max()) for block in scores() if block.numel())
        (shifted,) = order_statistics(lambda: (block - smallest for block in scores()), [place], view.elements)
        return _Ranges(ranges[model].low, ranges[model].high, shifted + smallest, largest)

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[PcbParameters]
    ) -> torch.Tensor:
        """Return the base model plus the weighted mean."""
        assert base is not None  # noqa: S101 - the method requires a base model
        ranges: list[_Ranges] = parameters.survey
        deltas = task_vectors(base, tensors)
        weights = torch.stack(
            [
                _normalized(score.clamp_(one.least, one.most), one.least, one.most)
                for score, one in zip(_scores(deltas, ranges), ranges, strict=True)
            ]
        )
        clipped = torch.stack(
            [d.sign() * d.abs().clamp_(one.low, one.high) for d, one in zip(deltas, ranges, strict=True)]
        )
        merged = (clipped * weights).sum(0) / weights.sum(0).clamp(min=1e-12)
        return merged.mul_(parameters.whole.lambda_).add_(base)


def _scores(deltas: torch.Tensor, ranges: Sequence[_Ranges]) -> list[torch.Tensor]:
    """Return the scores of all task vectors."""
    total = deltas.sum(0)
    found = []
    for delta, one in zip(deltas, ranges, strict=True):
        own = _normalized(delta.abs().clamp_(one.low, one.high), one.low, one.high).square_().mul_(len(deltas)).exp_()
        found.append(own.mul_(torch.tanh(delta * total)))
    return found


def _normalized(values: Any, low: float, high: float) -> torch.Tensor:
    return (values - low) / (high - low) if high > low else torch.zeros_like(values)
