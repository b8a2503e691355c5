"""Measured speeds of this machine: how long merges and evaluations of earlier runs took.

A run stores them in the user's cache, and a plan reads them. A speed belongs to work of one size, because small
tensors and small models are slower than their number of operations suggests.
"""

from __future__ import annotations

import math

from hubmerge.executor.parallel.scheduling import available_cpus
from hubmerge.support import memo

_KIND = "speed"
_LEAST = 1e-9


def record_merge(method: str, counted: float, seconds: float) -> None:
    """Store the duration of a merge.

    Args:
        method: the name of the merge method.
        counted: the duration in seconds that the number of operations suggests.
        seconds: the measured duration.
    """
    if counted > 0 and seconds > 0:
        memo.put(_KIND, _key("merge", method, counted), seconds / counted)


def merge_factor(method: str, counted: float) -> float | None:
    """Return measured / counted duration of a merge of this size, None if none was measured on this machine."""
    return memo.get(_KIND, _key("merge", method, counted), float)


def record_scores(kind: str, parameters: int, examples: int, seconds: float) -> None:
    """Store the duration of the evaluation of one task.

    Args:
        kind: the kind of the task.
        parameters: the number of parameters of the model.
        examples: the number of examples of the task.
        seconds: the measured duration.
    """
    if examples > 0 and seconds > 0:
        memo.put(_KIND, _key("score", kind, parameters), seconds / examples)


def seconds_per_example(kind: str, parameters: int) -> float | None:
    """Return the measured duration of one example with a model of this size, None if none was measured."""
    return memo.get(_KIND, _key("score", kind, parameters), float)


def _key(work: str, name: str, size: float) -> bytes:
    """Return the key of work of a size: half an order of magnitude each."""
    return f"{work} {name} {round(2 * math.log10(max(size, _LEAST)))} {available_cpus()} CPUs".encode()
