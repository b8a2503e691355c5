"""Tensors in files that the model's class does not use, such as the layers for multi-token prediction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PREDICTION = "a layer for multi-token prediction"

_PREDICTION_NAME = re.compile(r"(?:^|\.)(?:mtp|nextn)(?:_\w+)?(?:\.|$)")
PREDICTION_COUNTS = re.compile(r"num_nextn_predict_layers|num_mtp_(?:layers|modules)|mtp_num_(?:hidden_)?layers")
"""Keys of configs with the number of layers that predict further tokens."""

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")


@dataclass(frozen=True)
class Spare:
    """Tensors that the model's class does not use; a checkpoint may lack them or have more of them.

    Attributes:
        unused: those in the base model's files.
        known: names of tensors that the class uses, in memory and in the base model's files.
        patterns: regular expressions for further ones, from the class.
        layers: the numbers of further layers in the model's stack that predict several tokens.
    """

    unused: frozenset[str] = frozenset()
    known: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    layers: frozenset[int] = frozenset()

    def reason(self, name: str) -> str | None:
        """Return why the class does not use a tensor, in words; None if it may use it."""
        if name in self.known:
            return None
        if is_for_prediction(name, self.layers):
            return PREDICTION
        if name in self.unused or any(re.search(pattern, name) for pattern in self.patterns):
            return "not used by the model's class"
        return None


NO_SPARE = Spare()
"""Nothing that a class does not use."""


def is_for_prediction(name: str, layers: frozenset[int]) -> bool:
    """Return True if a tensor or layer predicts further tokens, by its name or its number.

    >>> is_for_prediction("mtp.fc.weight", frozenset()), is_for_prediction("model.layers.61", frozenset({61}))
    (True, True)
    """
    found = _LAYER.search(name)
    return _PREDICTION_NAME.search(name) is not None or (found is not None and int(found[1]) in layers)


def prediction_layers(config: Mapping[str, Any]) -> frozenset[int]:
    """Return the numbers of the layers after the last one of the model that predict several tokens.

    >>> sorted(prediction_layers({"num_hidden_layers": 61, "num_nextn_predict_layers": 1}))
    [61]
    """
    return frozenset(_numbers(config))


def _numbers(config: Mapping[str, Any]) -> Iterator[int]:
    first = config.get("num_hidden_layers")
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif type(value) is int and type(first) is int and 0 < value < first and PREDICTION_COUNTS.fullmatch(str(key)):
            yield from range(first, first + value)
