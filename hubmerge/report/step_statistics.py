"""Statistics of one step, as the report holds them."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hubmerge.support.records import Number, record


@record
@dataclass(frozen=True)
class Spread:
    """Mean, smallest and largest value of a statistic over the weight matrices of a model."""

    mean: Number
    minimum: Number
    maximum: Number

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of `values`, None if there are none."""
        if not values:
            return None
        return cls(math.fsum(values) / len(values), float(min(values)), float(max(values)))


@record
@dataclass(frozen=True)
class TensorSummary:
    """Statistics over all tensors of one step."""

    weight_matrices: int = 0
    other_tensors: int = 0
    rank: Spread | None = None  # protected directions in a weight matrix; None if the method has no rank
    removed_share: Spread | None = None  # share of the task vector's squared norm that the projection removed
    error: Spread | None = None  # distance of a truncated projection from the exact one; None if it is exact
    averaged: int | None = None  # statistics; None if the model has none, or if they are added up like weights

    @property
    def merged(self) -> int:
        """Number of all merged tensors."""
        return self.weight_matrices + self.other_tensors + (self.averaged or 0)


@record
@dataclass(frozen=True)
class MatrixStats:
    """Statistics of one weight matrix in one step."""

    name: str
    rank: int  # protected directions
    directions: int  # all directions
    removed_share: Number


@record
@dataclass(frozen=True)
class StepSimilarity:
    """Cosine between the task vectors of a step and of an earlier one, estimated from sketches."""

    step: int  # the earlier one
    name: str
    cosine: Number | None  # over all merged tensors; None if a task vector is zero
    layers: dict[str, Number | None] = field(default_factory=dict)


def omit_unused(step: MutableMapping[str, Any]) -> None:
    """Remove from a plain step report what earlier reports do not have, if it is None."""
    if step["tensors"]["averaged"] is None:
        del step["tensors"]["averaged"]
    for key in ("head", "revokes", "read"):
        if step[key] is None:
            del step[key]
    for key in ("inputs", "layers", "replaces", "tokenizer", "combined"):
        if not step[key]:
            del step[key]
