"""Exact k-th smallest magnitude over a whole model, without having the model in memory.

A float64 magnitude read as an integer has the same order as the number. So the value is found digit by digit, 16 bits
per sweep, by counting. Once few candidates are left, they are collected and sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from hubmerge.methods.base import Sweep
from hubmerge.support.lazy import torch

DIGIT_BITS = 16
COLLECTED = 1 << 16
"""Number of candidates that are collected."""


@dataclass(frozen=True)
class Magnitudes:
    """Magnitudes of the accumulated delta and of the task vector."""

    accumulated: float
    task_vector: float


@dataclass(frozen=True)
class _Search:
    """State of the search: the bit pattern begins with `prefix`, `known` bits long, and is number `place` of those.

    `place` counts from 1 in ascending order among the `remaining` patterns that begin with the prefix.
    """

    place: int
    remaining: int
    known: int = 0
    prefix: int = 0

    @property
    def few(self) -> bool:
        """True if the candidates can be collected; if every bit is known, all are equal to the prefix."""
        return self.known == 64 or self.remaining <= COLLECTED

    def among(self, patterns: torch.Tensor) -> torch.Tensor:
        """Return the candidates among some bit patterns; only one if every bit is known."""
        if self.known == 0:
            return patterns
        found = patterns[patterns >> (64 - self.known) == self.prefix]
        return found[:1].clone() if self.known == 64 else found

    def count(self, values: torch.Tensor) -> torch.Tensor:
        """Return the number of candidates for each value of the next digit."""
        shift = 64 - self.known - DIGIT_BITS
        digits = self.among(_patterns(values)) >> shift & ((1 << DIGIT_BITS) - 1)
        return torch.bincount(digits, minlength=1 << DIGIT_BITS).cpu()

    def narrowed(self, counts: torch.Tensor) -> _Search:
        """Return the search with one more digit, from the counts over the whole model."""
        sums = torch.cumsum(counts, 0)
        digit = int(torch.searchsorted(sums, self.place))
        below = int(sums[digit - 1]) if digit else 0
        prefix = self.prefix << DIGIT_BITS | digit
        return _Search(self.place - below, int(counts[digit]), self.known + DIGIT_BITS, prefix)

    def pick(self, candidates: list[torch.Tensor]) -> float:
        """Return the magnitude, from all candidates."""
        patterns = torch.sort(torch.cat(candidates)).values
        index = 0 if self.known == 64 else self.place - 1
        return float(patterns[index : index + 1].view(torch.float64))


def kth_smallest_magnitudes(sweep: Sweep, density: float) -> Magnitudes:
    """Return magnitude number d - floor(density d) of d in ascending order; the smallest for density 1.

    This takes at most six sweeps, usually four. Memory does not grow with the model.
    """
    total = sum(sweep(lambda _, task_vector: task_vector.numel()))
    if total == 0:
        return Magnitudes(0.0, 0.0)
    place = max(1, total - int(total * density))
    first = second = _Search(place, total)
    while not (first.few and second.few):
        first, second = _narrow(sweep, first, second)
    candidates = list(sweep(partial(_candidates, first, second)))
    return Magnitudes(first.pick([pair[0] for pair in candidates]), second.pick([pair[1] for pair in candidates]))


def _narrow(sweep: Sweep, first: _Search, second: _Search) -> tuple[_Search, _Search]:
    """Return both searches with one more digit, unless they are done."""
    first_counts, second_counts = (torch.zeros(1 << DIGIT_BITS, dtype=torch.int64) for _ in range(2))
    for first_more, second_more in sweep(partial(_count, first, second)):
        first_counts += first_more
        second_counts += second_more
    return (
        first if first.few else first.narrowed(first_counts),
        second if second.few else second.narrowed(second_counts),
    )


def _count(
    first: _Search, second: _Search, accumulated: torch.Tensor, task_vector: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    nothing = torch.zeros((), dtype=torch.int64)
    return (
        nothing if first.few else first.count(accumulated),
        nothing if second.few else second.count(task_vector),
    )


def _candidates(
    first: _Search, second: _Search, accumulated: torch.Tensor, task_vector: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return first.among(_patterns(accumulated)).cpu(), second.among(_patterns(task_vector)).cpu()


def _patterns(values: torch.Tensor) -> torch.Tensor:
    return values.abs().reshape(-1).view(torch.int64)
