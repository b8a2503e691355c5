"""Gradients: parameter values that change over the layers, written as a list of numbers as in mergekit.

The numbers are spread evenly over the layers, the first one at the first layer and the last one at the last layer.
Between them, values are interpolated linearly: `[0, 0.5, 1]` in a model of five layers gives 0, 0.25, 0.5, 0.75, 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_LAYER = re.compile(r"^(?:.*?\.)??(?P<number>\d+)\.")


def is_gradient(value: object) -> bool:
    """Return True if a parameter's value is a list of numbers."""
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def interpolated(values: Sequence[float], place: float) -> float:
    """Return the value of a gradient at a place between 0, the first layer, and 1, the last layer.

    >>> interpolated([0, 0.5, 1], 0.25)
    0.25
    """
    scaled = place * (len(values) - 1)
    first = int(scaled)
    share = scaled - first
    second = min(first + 1, len(values) - 1)
    return values[first] if share == 0 else (1 - share) * values[first] + share * values[second]


def layer_of(name: str) -> tuple[str, int] | None:
    """Return the stack of layers that a tensor belongs to and the number of its layer; None outside the layers.

    >>> layer_of("vision_model.encoder.layers.11.mlp.fc1.weight"), layer_of("lm_head.weight")
    (('vision_model.encoder.layers.', 11), None)
    """
    found = _LAYER.match(name)
    return (name[: found.start("number")], int(found["number"])) if found else None


class LayerPositions:
    """Positions of tensors in the layers of their model. Call the instance with the name of a tensor.

    The first layer is at 0 and the last one at 1, in each stack of layers (a tower, an encoder, a decoder). Tensors
    outside the layers are at 0. The only layer of a stack is at 1. These are mergekit's rules.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._last: dict[str, int] = {}
        for stack, number in filter(None, map(layer_of, names)):
            self._last[stack] = max(number, self._last.get(stack, 0))

    def __call__(self, name: str) -> float:
        """Return the position of a tensor, from 0 to 1."""
        found = layer_of(name)
        if found is None or found[0] not in self._last:
            return 0.0
        stack, number = found
        last = self._last[stack]
        return number / last if last else 1.0

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of layers of the stacks, each once, the largest first."""
        return tuple(sorted({last + 1 for last in self._last.values()}, reverse=True))


def single_values(path: tuple[str | int, ...], value: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """Return the numbers and words in a parameter's value, each with its key path."""
    if not isinstance(value, list):
        return [(path, value)]
    if is_gradient(value):
        return [((*path, index), number) for index, number in enumerate(value)]
    return [pair for index, item in enumerate(value) for pair in single_values((*path, index, "value"), item["value"])]
