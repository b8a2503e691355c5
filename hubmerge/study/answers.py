"""Right and wrong answers of a merged model, and differences between two variants on equal examples."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
"""Number of bootstrap samples."""

LEVEL = 0.95
"""Share of the bootstrap samples inside the interval."""

PAIRED_DEFINITION = (
    "mean over the tasks of the difference in accuracy to the first variant, and its 95 % interval from a paired "
    "bootstrap over the examples of each task, after averaging over the merges; "
    "a difference whose interval contains 0 is inside the noise"
)

Answers = Mapping[str, np.ndarray]
"""For each task, one value for each of its examples: True for a right answer, or the share of right answers."""


def pack_answers(right: np.ndarray) -> str:
    """Return the answers to the examples of a task as text: their number, and one bit for each in base64."""
    return f"{len(right)} {base64.b64encode(np.packbits(right).tobytes()).decode('ascii')}"


def unpack_answers(text: str) -> np.ndarray:
    """Return the answers in a text of `pack_answers`.

    Raises:
        ValueError: the text is not of this form.
    """
    count, _, bits = text.partition(" ")
    try:
        values = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
    except ValueError as error:
        raise ValueError(f"not the answers of a task: {text[:40]!r}: {error}") from error
    if not count.isdecimal() or len(values) != (int(count) + 7) // 8:
        raise ValueError(f"not the answers of a task: {text[:40]!r}")
    return np.unpackbits(values, count=int(count)).astype(bool)


def mean_answers(merges: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Return for each task the share of the merges that answer each example correctly.

    Args:
        merges: the packed answers of each merge by task.

    Returns:
        The shares by task; empty if the merges do not answer the same tasks.
    """
    if not merges or any(merge.keys() != merges[0].keys() for merge in merges):
        return {}
    return {task: np.mean([unpack_answers(merge[task]) for merge in merges], axis=0) for task in merges[0]}


@dataclass(frozen=True)
class PairedDifference:
    """Difference in accuracy between two variants on equal examples, with the ends of its interval."""

    mean: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """True if the interval contains 0."""
        return self.low <= 0.0 <= self.high

    def points(self) -> str:
        """Return the difference in percentage points with its interval."""
        return f"{100 * self.mean:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


def paired_difference(
    one: Answers, other: Answers, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> PairedDifference | None:
    """Return the mean over the tasks of one - other, with an interval from a paired bootstrap over the examples.

    Examples are drawn with replacement within each task, the same ones for both variants. So how hard an example is
    cancels, and a task counts equally however many examples it has.

    Args:
        one: the answers of a variant.
        other: the answers of the variant to compare with.
        draws: the number of bootstrap samples.
        level: the share of the samples inside the interval.
        seed: the seed of the draws.

    Returns:
        The difference; None if the variants do not answer the same examples.
    """
    sizes = {task: len(values) for task, values in one.items()}
    if not sizes or 0 in sizes.values() or sizes != {task: len(values) for task, values in other.items()}:
        return None
    generator = np.random.default_rng(seed)
    samples = np.zeros(draws)
    means = []
    for task, size in sizes.items():
        differences = one[task].astype(np.float64) - other[task].astype(np.float64)
        means.append(float(differences.mean()))
        counts = generator.multinomial(size, np.full(size, 1.0 / size), size=draws)
        samples += counts @ differences / size
    low, high = np.quantile(samples / len(sizes), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return PairedDifference(float(np.mean(means)), float(low), float(high))
