"""Order statistics of numbers that arrive in blocks, in memory that does not grow with their number.

A sample and one pass over the numbers find them (`brackets`). Where that fails, and on other devices than the CPU, they
are found digit by digit: the bit pattern of a float that is not negative grows with its value, so count the digits of
the candidates, 16 bits at a time, and keep the digit in which number k lies. The answer does not depend on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hubmerge.methods.joint.brackets import Place, Sample, search
from hubmerge.methods.joint.masks import at_least, counted, greater
from hubmerge.support.lazy import np, torch

DIGIT_BITS = 16

Numbers = Callable[[], "Iterable[torch.Tensor]"]
"""A function that returns the blocks of numbers, none of them negative, anew at each call."""


@dataclass(frozen=True)
class Cut:
    """A place in the ascending order of numbers; of equal numbers, the one with the larger index is the smaller.

    A number is above the cut if it is larger than `value`, or equal and its index is less than `index`.
    """

    value: float
    index: int

    def above(self, numbers: torch.Tensor, start: int) -> torch.Tensor:
        """Return the mask of the numbers above the cut; `start` is the index of the first one."""
        flat = numbers.reshape(-1)
        first = max(0, min(self.index - start, flat.numel()))
        if first == flat.numel():
            return at_least(numbers, self.value)
        mask = greater(flat, self.value)
        if first:
            mask[:first] = at_least(flat[:first], self.value)
        return mask.view(numbers.shape)


EVERYTHING = Cut(-1.0, 0)
"""The cut below all numbers."""


@dataclass
class _Search:
    """A search for number `place` in ascending order, from 0.

    `prefix` are its leading `known` bits, `below` counts the numbers that are known to be smaller, and `equal` those
    that begin with the same bits.
    """

    place: int
    known: int = 0
    prefix: int = 0
    below: int = 0
    equal: int = 0

    def count(self, patterns: torch.Tensor, bits: int) -> torch.Tensor:
        """Return the number of candidates for each value of the next digit."""
        if self.known:
            patterns = patterns[patterns >> (bits - self.known) == self.prefix]
        digits = patterns >> (bits - self.known - DIGIT_BITS) & ((1 << DIGIT_BITS) - 1)
        if digits.device.type == "cpu":  # NumPy counts twice as fast
            return torch.from_numpy(np.bincount(digits.numpy(), minlength=1 << DIGIT_BITS))
        return torch.bincount(digits, minlength=1 << DIGIT_BITS).cpu()

    def narrow(self, counts: torch.Tensor) -> None:
        """Take the next digit from the counts over all numbers."""
        sums = torch.cumsum(counts, 0)
        digit = int(torch.searchsorted(sums, self.place - self.below, right=True))
        self.below += int(sums[digit - 1]) if digit else 0
        self.equal = int(counts[digit])
        self.prefix = self.prefix << DIGIT_BITS | digit
        self.known += DIGIT_BITS


def cuts(numbers: Numbers, kept: Sequence[int] | Callable[[int], int], total: int) -> list[Cut]:
    """Return for each count in `kept` the cut with so many numbers above it.

    Args:
        numbers: the numbers; they are read two or three times, seldom more.
        kept: how many numbers are to be above each cut, from 0 to `total`; or a function that returns this for one cut,
            given how many numbers are not zero.
        total: how many numbers there are.
    """
    sample = _sampled(numbers, total, count=callable(kept))
    if callable(kept):
        kept = [kept(sum(counted(block != 0.0) for block in numbers()) if sample is None else sample.varying)]
    wanted = [count for count in kept if count < total]
    places = iter(_places(numbers, [total - max(count, 1) for count in wanted], sample))
    return [_cut(next(places), count, total, numbers) if count < total else EVERYTHING for count in kept]


def _cut(place: Place, count: int, total: int, numbers: Numbers) -> Cut:
    """Return the cut at a number with `count` numbers above it."""
    wanted = count - (total - place.below - place.equal)
    if wanted == place.equal:
        return Cut(place.value, total)
    if place.indices is not None:
        return Cut(place.value, int(place.indices[wanted - 1]) + 1 if wanted else 0)
    return Cut(place.value, _end_of_equals(numbers, place.value, wanted))


def order_statistics(numbers: Numbers, places: Sequence[int], total: int) -> list[float]:
    """Return the numbers at these places of the ascending order, from 0, of `total` numbers."""
    return [place.value for place in _places(numbers, places, _sampled(numbers, total))]


def _sampled(numbers: Numbers, total: int, *, count: bool = False) -> Sample | None:
    """Return a sample of the numbers, None if there are none or if they are on a device."""
    return Sample(total).take(numbers(), count=count) if total else None


def _places(numbers: Numbers, places: Sequence[int], sample: Sample | None) -> list[Place]:
    """Return the numbers at these places of the ascending order."""
    found = search(sample.brackets(places), numbers()) if sample is not None and places else None
    if found is not None:
        return found
    searches = [_Search(place) for place in places]
    bits = _find(searches, numbers)
    return [Place(_value(one.prefix, bits), one.below, one.equal) for one in searches]


def _find(searches: Sequence[_Search], numbers: Numbers) -> int:
    """Find all digits of the searches; return the number of bits of the numbers."""
    bits = 0
    while searches and (not bits or searches[0].known < bits):
        bits = _next_digit(numbers, searches)
    return bits


def _next_digit(numbers: Numbers, searches: Sequence[_Search]) -> int:
    """Find the next digit of each search; return the number of bits of the numbers."""
    counts = [torch.zeros(1 << DIGIT_BITS, dtype=torch.int64) for _ in searches]
    bits = 32
    for block in numbers():
        bits = 8 * block.dtype.itemsize
        patterns = block.reshape(-1).view(torch.int64 if bits == 64 else torch.int32)
        for one, count in zip(searches, counts, strict=True):
            count += one.count(patterns, bits)
    for one, count in zip(searches, counts, strict=True):
        one.narrow(count)
    return bits


def _end_of_equals(numbers: Numbers, value: float, count: int) -> int:
    """Return the index after the first `count` numbers that are equal to `value`."""
    start = seen = 0
    if count:
        for block in numbers():
            hits = block.reshape(-1) == value
            here = counted(hits)
            if seen + here >= count:
                return start + int(torch.nonzero(hits).view(-1)[count - seen - 1]) + 1
            seen += here
            start += hits.numel()
    return 0


def _value(pattern: int, bits: int) -> float:
    integer, kind = (torch.int64, torch.float64) if bits == 64 else (torch.int32, torch.float32)
    return float(torch.tensor([pattern], dtype=integer).view(kind)[0])
