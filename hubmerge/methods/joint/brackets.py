"""Order statistics in one pass over numbers in blocks, after a sample of them has shown about where they lie.

The sample gives a bracket for the number that is searched. The pass counts what is outside and keeps the few numbers
inside, so the answer is exact. Where the number turns out to lie outside, there is no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hubmerge.support.lazy import np, torch

if TYPE_CHECKING:
    import numpy.typing as npt

FEWEST, MOST = 1 << 15, 1 << 21
"""Smallest and largest sample, if there are so many numbers."""

STEP = 127
"""One of so many numbers is in the sample, between the two limits. An odd step meets all columns of most matrices."""

MARGIN = 5.0
"""Half the width of a bracket, in standard errors of the sample."""

INSIDE = 1 << 22
"""Most numbers that a bracket keeps."""


@dataclass(frozen=True)
class Place:
    """Place of a number among all numbers.

    Attributes:
        value: the number.
        below: how many are smaller.
        equal: how many are equal.
        indices: the indices of the equal ones, if they are known.
    """

    value: float
    below: int
    equal: int
    indices: npt.NDArray[Any] | None = None


class Growing:
    """Numbers in one array that doubles when it is full: many small arrays would keep large blocks of freed memory."""

    def __init__(self) -> None:
        self._array: npt.NDArray[Any] | None = None
        self.size = 0

    def add(self, numbers: npt.NDArray[Any]) -> None:
        """Append numbers."""
        end = self.size + numbers.size
        if self._array is None or end > self._array.size:
            larger = np.empty(max(2 * end, 1 << 12), dtype=numbers.dtype)
            larger[: self.size] = self.numbers
            self._array = larger
        self._array[self.size : end] = numbers
        self.size = end

    @property
    def numbers(self) -> npt.NDArray[Any]:
        """All numbers."""
        return np.empty(0) if self._array is None else self._array[: self.size]


@dataclass
class Bracket:
    """Search for number `place` in ascending order, from 0, between `low` and `high`."""

    place: int
    low: float
    high: float
    below_low: int = 0
    to_low: int = 0
    to_high: int = 0
    failed: bool = False
    values: Growing = field(default_factory=Growing)
    indices: Growing = field(default_factory=Growing)
    between: int = 0

    def add(self, numbers: npt.NDArray[Any], start: int) -> None:
        """Count a block, whose first number has the index `start`, and keep what is inside."""
        self.below_low += int(np.count_nonzero(numbers < self.low))
        self.to_high += int(np.count_nonzero(numbers <= self.high))
        above = numbers > self.low
        self.to_low += numbers.size - int(np.count_nonzero(above))
        if self.low == self.high or self.failed:
            return
        above &= numbers < self.high
        indices = np.flatnonzero(above)
        if indices.size:
            self.between += indices.size
            self.values.add(numbers[indices])
            self.indices.add(indices + start)
            self.failed = self.between > INSIDE

    def found(self) -> Place | None:
        """Return the place of the number, None if it is outside the bracket."""
        before_high = self.to_low + self.between
        if self.failed or not self.below_low <= self.place < self.to_high:
            return None
        if self.place < self.to_low:
            return Place(self.low, self.below_low, self.to_low - self.below_low)
        if self.place >= before_high:
            return Place(self.high, before_high, self.to_high - before_high)
        values, indices = self.values.numbers, self.indices.numbers
        value = np.partition(values, self.place - self.to_low)[self.place - self.to_low]
        equal = indices[values == value]
        return Place(float(value), self.to_low + int(np.count_nonzero(values < value)), len(equal), equal)


@dataclass
class Sample:
    """Evenly spread numbers, and how many of all numbers are not zero."""

    total: int
    chosen: Growing = field(default_factory=Growing)
    seen: int = 0
    varying: int = 0

    def take(self, blocks: Iterable[torch.Tensor], *, count: bool) -> Sample | None:
        """Read all numbers; return None if they are on a device. With `count`, count those that are not zero."""
        step = max(1, self.total // min(max(self.total // STEP, FEWEST), MOST)) | 1
        for block in blocks:
            if block.device.type != "cpu":
                return None
            numbers = block.reshape(-1).numpy()
            self.chosen.add(numbers[-self.seen % step :: step])
            self.seen += numbers.size
            self.varying += int(np.count_nonzero(numbers)) if count else 0
        return self

    def brackets(self, places: Sequence[int]) -> list[Bracket]:
        """Return a bracket for each place in ascending order."""
        numbers = np.sort(self.chosen.numbers)
        size = numbers.size
        found = []
        for place in places:
            share = place / self.total
            error = 0.0 if size == self.total else 1.0 + MARGIN * math.sqrt(size * share * (1.0 - share))
            low, high = math.floor(share * size - error), math.ceil(share * size + error)
            if size == self.total:
                low = high = place
            found.append(
                Bracket(
                    place,
                    float(numbers[low]) if low >= 0 else -1.0,
                    float(numbers[high]) if high < size else math.inf,
                )
            )
        return found


def search(brackets: Sequence[Bracket], blocks: Iterable[torch.Tensor]) -> list[Place] | None:
    """Read all numbers once and return the places; None if one of them is outside its bracket."""
    start = 0
    for block in blocks:
        numbers = block.reshape(-1).numpy()
        for bracket in brackets:
            bracket.add(numbers, start)
        start += numbers.size
    found = [bracket.found() for bracket in brackets]
    return None if None in found else [place for place in found if place is not None]
