"""What one step tells about itself, tensor by tensor and as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hubmerge.linalg import cosine_of_parts, total_norm


@dataclass(frozen=True)
class TensorStats:
    """One merged tensor in one step.

    `rank` is the number of protected directions out of `directions` (the smaller side), None where nothing is
    projected. `removed_share` is the share of the task vector's energy (sum of squares) that was taken out;
    `cosine` that between the task vector and the accumulated delta before the step, None if one is zero; `error`
    what a method that was told to save time is off, over the task vector's length, None if it is exact. Where one
    tensor holds the matrices of several experts, `expert_ranks` has the rank of each in the place of `rank`.
    """

    name: str
    action: str
    rank: int | None
    directions: int | None
    removed_share: float
    cosine: float | None
    task_vector_norm: float
    accumulated_norm: float
    error: float | None = None
    expert_ranks: tuple[int, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of all matrices in the tensor, none where nothing is projected."""
        return self.expert_ranks if self.rank is None else (self.rank,)


@dataclass(frozen=True)
class Similarity:
    """Cosine between the task vectors of a step and of an earlier one, `step`; estimated, None where one is zero.

    `layers` has the same for each layer: its tensors together.
    """

    step: int
    cosine: float | None
    layers: Mapping[str, float | None]


@dataclass(frozen=True)
class StepStats:
    """One step. Norms, `cosine` and `removed_share` are over all merged tensors together; `tensors` in plan order.

    `similarities` compare the task vector with every earlier one that the state has a sketch of.
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

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values, for keeping them beside the state of the step."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepStats:
        """Undo `to_dict`, also after JSON."""
        tensors = tuple(
            TensorStats(**{**tensor, "expert_ranks": tuple(tensor["expert_ranks"])}) for tensor in data["tensors"]
        )
        similarities = tuple(Similarity(**similarity) for similarity in data.get("similarities", ()))
        return cls(**{**data, "tensors": tensors, "similarities": similarities})


def overall_cosine(tensors: Sequence[TensorStats], previous_norms: Sequence[float]) -> float | None:
    """Cosine between task vector and accumulated delta over all tensors, from each tensor's own.

    `previous_norms` are the lengths of the accumulated deltas before the step. None if one is zero.
    """
    lengths = [tensor.task_vector_norm for tensor in tensors]
    return cosine_of_parts([tensor.cosine for tensor in tensors], lengths, previous_norms)


def overall_share(tensors: Sequence[TensorStats]) -> float:
    """Removed share of the energy of the whole task vector, from each tensor's own."""
    total = total_norm(tensor.task_vector_norm for tensor in tensors)
    if total == 0.0:
        return 0.0
    return math.fsum(tensor.removed_share * (tensor.task_vector_norm / total) ** 2 for tensor in tensors)
