"""Which tensors are worked on together: on an accelerator matrices by the dozen, since one would not keep it busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hubmerge.checkpoints import PlannedTensor

BATCH_ELEMENTS = 16 << 20
"""So many elements are in one batch at most: 128 MiB for each float64 copy of them, on the accelerator."""


@dataclass(frozen=True)
class Batch:
    """Tensors that go through a merge together; `places` are theirs among all that are merged."""

    tensors: tuple[PlannedTensor, ...]
    places: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers they hold."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def flops(self) -> float:
        """Rough cost of absorbing a task vector."""
        return sum(tensor.flops for tensor in self.tensors)


def batches(tensors: Sequence[PlannedTensor], device: torch.device) -> list[Batch]:
    """Every tensor alone on the CPU; elsewhere weight matrices whose shorter sides are equal in batches.

    They depend on nothing else, so the digits do not either: kernels for batches may round otherwise.
    """
    if device.type == "cpu":
        return [Batch((tensor,), (place,)) for place, tensor in enumerate(tensors)]
    alike: dict[object, list[int]] = {}
    for place, tensor in enumerate(tensors):
        matrix = tensor.action == "merge-matrix"
        alike.setdefault(("side", min(tensor.shape[-2:])) if matrix else place, []).append(place)
    return [
        Batch(tuple(tensors[place] for place in places), tuple(places))
        for group in alike.values()
        for places in _small_enough(group, tensors)
    ]


def _small_enough(group: Sequence[int], tensors: Sequence[PlannedTensor]) -> Iterator[list[int]]:
    places: list[int] = []
    elements = 0
    for place in group:
        if places and elements + tensors[place].elements > BATCH_ELEMENTS:
            yield places
            places, elements = [], 0
        places.append(place)
        elements += tensors[place].elements
    yield places
