"""Statistics of one step, for each tensor and over all tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from hubmerge.linalg import cosine_of_parts, total_norm


@dataclass(frozen=True)
class TensorStats:
    """One merged tensor in one step.

    Attributes:
        name: name of the tensor.
        action: `merge-matrix`, `merge-other`, or `average` for statistics, which count in no norm over all tensors.
        task_vector_norm: norm of the task vector.
        accumulated_norm: norm of the accumulated delta after the step.
        cosine: cosine between the task vector and the accumulated delta before the step; None if one is zero.
        rank: number of protected directions; None if nothing is projected, or for experts.
        directions: number of all directions, the smaller side; None if nothing is projected.
        removed_share: share of the task vector's energy (sum of squares) that was removed.
        error: always None; version 0.1.0 had a method that could be inexact.
        expert_ranks: the rank for each expert, if the tensor has the matrices of several experts.
    """

    name: str
    action: str
    task_vector_norm: float
    accumulated_norm: float
    cosine: float | None = None
    rank: int | None = None
    directions: int | None = None
    removed_share: float = 0.0
    error: float | None = None
    expert_ranks: tuple[int, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of all matrices in the tensor; empty if nothing is projected."""
        return self.expert_ranks if self.rank is None else (self.rank,)


@dataclass(frozen=True)
class Similarity:
    """Estimated cosine between the task vectors of a step and of an earlier one, `step`; None if one is zero.

    `layers` has the cosine of each layer, over its tensors together.
    """

    step: int
    cosine: float | None
    layers: Mapping[str, float | None]


@dataclass(frozen=True)
class AllCosines:
    """Estimated cosines between the task vectors of several steps; `rows` has those of a step with the ones before it.

    None stands for the cosine with a task vector that is zero.
    """

    steps: tuple[int, ...] = ()
    rows: tuple[tuple[float | None, ...], ...] = ()

    def between(self, steps: Collection[int]) -> dict[int, dict[int, float]]:
        """Return the known cosines of each of some steps with the others of them."""
        found: dict[int, dict[int, float]] = {step: {} for step in self.steps if step in steps}
        for one, row in zip(self.steps, self.rows, strict=True):
            for other, cosine in zip(self.steps, row, strict=False):
                if one in found and other in found and cosine is not None:
                    found[one][other] = found[other][one] = cosine
        return found


@dataclass(frozen=True)
class StepStats:
    """One step. Norms, `cosine` and `removed_share` are over all merged tensors together; `tensors` are in plan order.

    `averaged` is the number of statistics; None if the model has none, or if they are added up like weights.
    `reads_state` is set if the method reads the merged delta out of the state, `revoked` if the checkpoint was taken
    out of the merge.
    `similarities` compare the task vector with every earlier one that has a sketch in the state, `cosines` all of them
    with one another.
    """

    step: int
    checkpoint: str
    method: str
    task_vector_norm: float
    accumulated_norm: float
    scale: float
    cosine: float | None
    removed_share: float
    tensors: tuple[TensorStats, ...]
    similarities: tuple[Similarity, ...] = ()
    averaged: int | None = None
    reads_state: bool = False
    revoked: bool = False
    cosines: AllCosines = AllCosines()

    @property
    def drift(self) -> float | None:
        """Norm of the merged delta; None if only the written model has it."""
        return None if self.reads_state else self.accumulated_norm / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepStats:
        """Return the statistics that `to_dict` gave, also after JSON."""
        return _STEP_STATS.validate_python(dict(data))


_STEP_STATS = TypeAdapter(StepStats)


def overall_cosine(tensors: Sequence[TensorStats], previous_norms: Sequence[float]) -> float | None:
    """Return the cosine between task vector and accumulated delta over all tensors, from those of each tensor.

    `previous_norms` are the norms of the accumulated deltas before the step. The result is None if one side is zero.
    """
    norms = [tensor.task_vector_norm for tensor in tensors]
    return cosine_of_parts([tensor.cosine for tensor in tensors], norms, previous_norms)


def overall_share(tensors: Sequence[TensorStats]) -> float:
    """Return the removed share of the energy of the whole task vector, from those of each tensor."""
    total = total_norm(tensor.task_vector_norm for tensor in tensors)
    if total == 0.0:
        return 0.0
    return math.fsum(tensor.removed_share * (tensor.task_vector_norm / total) ** 2 for tensor in tensors)
