"""Batches of tensors: on an accelerator many matrices are processed at once, since one would not keep it busy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hubmerge.checkpoints import PlannedTensor

BATCH_ELEMENTS = 16 << 20
"""Most elements in a batch of several tensors: 128 MiB for each float64 copy on the accelerator."""


@dataclass(frozen=True)
class TensorBatch:
    """Tensors that are merged together.

    Attributes:
        tensors: the tensors.
        places: index of each tensor among all merged tensors.
    """

    tensors: tuple[PlannedTensor, ...]
    places: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements of all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def flops(self) -> float:
        """Estimated floating-point operations to merge one task vector."""
        return sum(tensor.flops for tensor in self.tensors)


def batch_tensors(tensors: Sequence[PlannedTensor], *, together: bool) -> list[TensorBatch]:
    """Divide tensors into batches: single tensors, or matrices with equal shorter sides `together`.

    Batched kernels may round differently. Batches therefore depend only on the tensors and on the type of the device
    (see `ExecutorContext.together`), and so do the results.
    """
    if not together:
        return [TensorBatch((tensor,), (place,)) for place, tensor in enumerate(tensors)]
    groups: dict[object, list[int]] = {}
    for place, tensor in enumerate(tensors):
        matrix = tensor.action == "merge-matrix"
        groups.setdefault(("side", min(tensor.shape[-2:])) if matrix else place, []).append(place)
    return [
        TensorBatch(tuple(tensors[place] for place in places), tuple(places))
        for group in groups.values()
        for places in _bounded(group, tensors)
    ]


def _bounded(group: Sequence[int], tensors: Sequence[PlannedTensor]) -> Iterator[list[int]]:
    """Split a group at `BATCH_ELEMENTS`; a larger tensor is a batch of its own."""
    places: list[int] = []
    elements = 0
    for place in group:
        if places and elements + tensors[place].elements > BATCH_ELEMENTS:
            yield places
            places, elements = [], 0
        places.append(place)
        elements += tensors[place].elements
    yield places


def for_each_of(on_tensor: Callable[[PlannedTensor], None] | None) -> Callable[[TensorBatch], None] | None:
    """Return a listener that calls `on_tensor` for each tensor of a batch; None without one."""
    if on_tensor is None:
        return None

    def on_batch(batch: TensorBatch) -> None:
        for tensor in batch.tensors:
            on_tensor(tensor)

    return on_batch
