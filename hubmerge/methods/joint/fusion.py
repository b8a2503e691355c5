"""Arcee Fusion: take from the other model what matters most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.methods.joint.base import JointMethod, JointParameters, TensorView
from hubmerge.methods.joint.masks import at_least, choose
from hubmerge.methods.joint.selection import order_statistics
from hubmerge.support.lazy import torch


class ArceeFusion(JointMethod):
    """Arcee Fusion. θ = θ^(1) where importance is at least q_2 + 1.5 (q_3 - q_1), and θ_0 elsewhere.

    The importance of an element is |θ^(1) - θ_0| times the Kullback-Leibler divergence of its row,
    Σ p log(p / q) with p = softmax(row of θ^(1)) and q = softmax(row of θ_0), each plus 1e-8. q_1, q_2, q_3 are the
    quartiles of the importance over the whole tensor, element int((n - 1) / 4) in ascending order and so on.
    """

    name = "arcee_fusion"
    summary = "the other model's most important changes, chosen by divergence and size"
    source = "arcee.ai, as in mergekit's documentation of arcee_fusion"
    blocks = "rows"
    most = 1

    SMALLEST = 1e-8

    def survey(self, view: TensorView, parameters: JointParameters[Any]) -> _Importance:
        """Return the divergences of the rows, and the smallest importance that is taken."""
        divergences, done = torch.empty(0), 0
        for base, tensors in view.blocks():
            found = self.divergence(base, tensors[0])
            if not done:
                divergences = found.new_empty((view.elements // tensors[0].shape[-1], 1))
            divergences[done : done + len(found)] = found
            done += len(found)

        def numbers() -> Iterator[torch.Tensor]:
            row = 0
            for base, tensors in view.blocks():
                yield importance(base, tensors[0], divergences[row:])
                row += len(tensors[0])

        places = [int(share * (view.elements - 1)) for share in (0.25, 0.5, 0.75)]
        first, median, third = order_statistics(numbers, places, view.elements)
        return _Importance(divergences, median + 1.5 * (third - first))

    def divergence(self, base: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
        """Return the Kullback-Leibler divergence of each row, in one column."""
        assert base is not None  # noqa: S101 - the method requires a base model
        p = torch.softmax(other, -1).add_(self.SMALLEST)
        q = torch.softmax(base, -1).add_(self.SMALLEST)
        return torch.div(p, q, out=q).log_().mul_(p).sum(-1, keepdim=True)

    def merge(
        self, base: torch.Tensor | None, tensors: Sequence[torch.Tensor], parameters: JointParameters[Any]
    ) -> torch.Tensor:
        """Return the rows with the important elements of the other model."""
        assert base is not None  # noqa: S101 - the method requires a base model
        survey: _Importance = parameters.survey
        first = parameters.start // max(base.shape[-1], 1)
        important = importance(base, tensors[0], survey.divergences[first:])
        return choose(at_least(important, survey.least), tensors[0], base)


@dataclass(frozen=True)
class _Importance:
    """Divergences of the rows, and the smallest importance that is taken."""

    divergences: torch.Tensor
    least: float


def importance(base: torch.Tensor | None, other: torch.Tensor, divergences: torch.Tensor) -> torch.Tensor:
    """Return the importance of each element of some rows, given the divergences from them on; it is not negative."""
    assert base is not None  # noqa: S101 - the method requires a base model
    return (other - base).abs_().mul_(divergences[: len(other)]).clamp_(min=0.0)
