"""Entries of a stream that lie far off the others, by a robust statistic: a sign of diverged or poisoned models."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean, median

from hubmerge.report.report import RunReport

FEWEST = 5
"""Fewest entries among which one is called an outlier."""

FAR = 3.5
"""Distance from the median, in standard deviations estimated from the median absolute deviation, that is far off."""

_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

SMALLEST_LOG_NORM = 0.1
"""Smallest deviation of logarithms of norms that is assumed: a factor of 1.1."""

SMALLEST_COSINE = 0.03
"""Smallest deviation of cosines that is assumed, about the error of one estimated from sketches."""

OPPOSED = -0.25
"""Cosine of two task vectors up to which they are called opposed. Unrelated tasks have cosines near 0."""

CAUSE = "its training may have diverged, or the file was manipulated"
"""What an entry that lies far off may have gone through."""


def far_off(values: Mapping[str, float], *, smallest: float) -> dict[str, float]:
    """Return the median of the values, by name, for those that lie far off it; none of fewer than five.

    Args:
        values: a number for each entry.
        smallest: the smallest deviation that is assumed, so that entries which hardly differ have no outlier.

    Example:
        >>> far_off({"a": 1.0, "b": 1.1, "c": 0.9, "d": 1.0, "e": 9.0}, smallest=0.1)
        {'e': 1.0}
    """
    if len(values) < FEWEST:
        return {}
    middle = median(values.values())
    deviation = _TO_DEVIATION * median(abs(value - middle) for value in values.values())
    limit = FAR * max(deviation, smallest)
    return {name: middle for name, value in values.items() if abs(value - middle) > limit}


def norm_outliers(norms: Mapping[str, float]) -> dict[str, str]:
    """Return for each entry whose task vector is abnormally long or short a text that says so.

    Args:
        norms: the norm of the task vector of each entry.
    """
    logs = {name: math.log(norm) if norm > 0.0 else -math.inf for name, norm in norms.items()}
    zero = {name for name, norm in norms.items() if norm <= 0.0}
    found = far_off({name: log for name, log in logs.items() if name not in zero}, smallest=SMALLEST_LOG_NORM)
    texts = {name: _length_text(norms[name], math.exp(middle)) for name, middle in found.items()}
    if len(norms) >= FEWEST:
        texts |= dict.fromkeys(sorted(zero), "its task vector is zero: the checkpoint is the base model")
    return texts


def _length_text(norm: float, middle: float) -> str:
    times = f"{norm / middle:.3g} times as long as" if norm > middle else f"{100 * norm / middle:.2g} % as long as"
    return f"its task vector is {times} the median of the stream's entries"


def cosine_outliers(cosines: Mapping[str, float]) -> dict[str, str]:
    """Return for each entry whose task vector is abnormally similar or opposed to the others a text that says so.

    Args:
        cosines: the mean cosine between the task vector of each entry and those of the others.
    """
    found = far_off(cosines, smallest=SMALLEST_COSINE)
    return {
        name: f"the mean cosine of its task vector with the others is {cosines[name]:.2f}, their median is {middle:.2f}"
        for name, middle in found.items()
    }


def recorded_outliers(report: RunReport) -> list[str]:
    """Return warnings about the entries of a report whose task vectors have an abnormal length or direction.

    Directions are compared only if the report has the cosines of all pairs: that of a long stream has fewer.
    """
    out = {step.revokes for step in report.steps} | {step.name for step in report.steps if step.revokes is not None}
    live = [step for step in report.steps if step.name not in out]
    known = {step.name: step.task_vector_norm for step in live if step.task_vector_norm is not None}
    texts = [*norm_outliers(known).items()]
    cosines: dict[str, dict[str, float]] = {step.name: {} for step in live}
    for step in live:
        for other in step.similarities:
            if other.name in cosines and other.cosine is not None:
                cosines[step.name][other.name] = cosines[other.name][step.name] = other.cosine
    if all(len(row) == len(live) - 1 for row in cosines.values()):
        texts += _pointing_away(cosines).items()
    return [f"{name} lies far off the other entries: {text}" for name, text in texts]


def outlier_warnings(names: Sequence[str], norms: Sequence[float], out: Collection[str]) -> list[str]:
    """Return warnings about entries far off the others, when the last of them is merged.

    With the fifth entry, all entries are compared; afterwards the last one alone, so that none is named twice.

    Args:
        names: the names of the steps, in merge order.
        norms: the norms of their task vectors.
        out: names of steps that do not count: entries that were taken out, and the steps that did it.
    """
    live = {name: norm for name, norm in zip(names, norms, strict=True) if name not in out}
    if names[-1] not in live:
        return []
    found = norm_outliers(live)
    shown = [*found] if len(live) == FEWEST else [name for name in found if name == names[-1]]
    return [f"{name} lies far off the other entries: {found[name]}; {CAUSE}" for name in shown]


def cosine_warnings(cosines: Mapping[str, Mapping[str, float]], last: str) -> list[str]:
    """Return warnings about entries whose task vectors point away from the others, when the last of them is merged.

    Two tests: a mean cosine with the others that lies far below the median of all entries, with five entries or more,
    and a cosine with another entry of `OPPOSED` or less. Similar task vectors are reported on their own.

    Args:
        cosines: for each entry the known cosines with the others.
        last: the name of the entry that was merged last. No other entry is named, except when it is the fifth one.
    """
    if last not in cosines:
        return []
    found = _pointing_away(cosines)
    shown = [*found] if sum(map(bool, cosines.values())) == FEWEST else [name for name in found if name == last]
    warnings = [
        f"{name} lies far off the other entries: {found[name]}; it may solve another kind of task, {CAUSE}"
        for name in shown
    ]
    opposed = sorted((cosine, name) for name, cosine in cosines[last].items() if cosine <= OPPOSED)
    if opposed:
        cosine, name = opposed[0]
        more = f", and to {len(opposed) - 1} more" if len(opposed) > 1 else ""
        text = f"the task vector of {last} is opposed to that of {name} (cosine about {cosine:.2f}){more}"
        warnings.append(f"{text}: one of them may be manipulated, or what they learned cancels")
    return warnings


def _pointing_away(cosines: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return for each entry whose task vector points away from the others a text that says so."""
    means = {name: fmean(row.values()) for name, row in cosines.items() if row}
    return {
        name: f"the mean cosine of its task vector with theirs is {means[name]:.2f}, and the median of all entries is "
        f"{middle:.2f}"
        for name, middle in far_off(means, smallest=SMALLEST_COSINE).items()
        if means[name] < middle
    }
