"""Similarity of task vectors, from the sketches in the state; no earlier checkpoint is read again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from hubmerge.checkpoints import TensorSpec
from hubmerge.checkpoints.matching.components import layers_of
from hubmerge.executor.state import State
from hubmerge.executor.stats.stats import Similarity, TensorStats
from hubmerge.linalg import SKETCH_SIZE, group_cosines

SKETCH_PREFIX = "sketch/"
OUTSIDE_LAYERS = "outside the layers"


def sketch_key(step: int) -> str:
    """Return the key in the state of the sketches of a step's task vector."""
    return f"{SKETCH_PREFIX}{step}"


def sketch_specs(steps: Sequence[int], tensors: int) -> list[TensorSpec]:
    """Return the tensors for the sketches: one row for each merged tensor, its norm first, float32."""
    return [TensorSpec(sketch_key(step), torch.float32, (tensors, 1 + SKETCH_SIZE)) for step in steps]


def earlier_sketches(previous: State | None) -> dict[int, torch.Tensor]:
    """Return the sketches of the steps so far, by step; steps merged without sketches are left out."""
    steps = range(1, 1 if previous is None else previous.step + 1)
    found = {} if previous is None else {step: previous.read_part(sketch_key(step)) for step in steps}
    return {step: sketches for step, sketches in found.items() if sketches is not None}


def compare_sketches(
    sketches: torch.Tensor, earlier: Mapping[int, torch.Tensor], tensors: Sequence[TensorStats]
) -> tuple[Similarity, ...]:
    """Return cosines between a task vector and each earlier one, over all tensors and for each layer.

    `sketches` and every one of `earlier` have a row for each of `tensors`.
    """
    layers: dict[str, list[int]] = {}
    for row, tensor in enumerate(tensors):
        layers.setdefault(layer_of(tensor.name), []).append(row)
    groups = [list(range(len(tensors))), *layers.values()]
    found = []
    for step, others in sorted(earlier.items()):
        first, second = sketches[:, 0].tolist(), others[:, 0].tolist()
        whole, *each = group_cosines(sketches[:, 1:], others[:, 1:], first, second, groups)
        found.append(Similarity(step, _rounded(whole), {n: _rounded(c) for n, c in zip(layers, each, strict=True)}))
    return tuple(found)


def layer_of(name: str) -> str:
    """Return the layer of a tensor: its name up to the first number, or `OUTSIDE_LAYERS`.

    >>> layer_of("vision_model.encoder.layers.3.mlp.fc1.weight")
    'vision_model.encoder.layers.3'
    """
    return next(layers_of(name), OUTSIDE_LAYERS)


def _rounded(cosine: float | None) -> float | None:
    # Sketches are precise to two or three digits.
    return None if cosine is None or not math.isfinite(cosine) else round(cosine, 4)
