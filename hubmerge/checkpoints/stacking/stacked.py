"""A model whose tensors come from several models, under new names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.weight_names import WeightNames


@dataclass(frozen=True)
class Place:
    """The place of a tensor: the number of its model, and its name there."""

    model: int
    name: str


class StackedCheckpoint(Checkpoint):
    """Tensors of several models, read under other names.

    Args:
        origin: the place of the model that lends the config, or the names of all models.
        places: name and place of every tensor.
        models: the models, by number.
        config: the config of the stacked model.
        names: the names of its weight files.
        base: the place of the stacked base model and the places of its tensors; None for the base model itself.
    """

    def __init__(
        self,
        origin: Origin,
        places: Mapping[str, Place],
        models: Mapping[int, Checkpoint],
        config: Mapping[str, Any],
        names: WeightNames,
        base: tuple[Origin, Mapping[str, Place]] | None = None,
    ) -> None:
        found = {name: replace(models[one.model].tensors[one.name], name=name) for name, one in places.items()}
        super().__init__(origin, found, config, {}, names=names, metadata={"format": "pt"})
        self._places = dict(places)
        self._models = dict(models)
        self._base = base

    def _of(self, name: str) -> tuple[Checkpoint, str]:
        place = self._places.get(name)
        return (
            (self._models[place.model], place.name) if place is not None else (next(iter(self._models.values())), name)
        )

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype and shape, in memory of its own."""
        model, stored = self._of(name)
        return model.read(stored)

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a tensor's values, flat, in pieces."""
        model, stored = self._of(name)
        return model.read_pieces(stored, elements)

    def can_read_pieces(self, name: str) -> bool:
        """Return True if reading in pieces never needs the whole tensor in memory."""
        model, stored = self._of(name)
        return model.can_read_pieces(stored)

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch the values of these tensors where they are not on this machine."""
        stored: dict[int, dict[str, None]] = {}
        for name in names:
            stored.setdefault(self._places[name].model, {})[self._places[name].name] = None
        for number, wanted in stored.items():
            self._models[number].prepare(wanted)

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors of one model have equal values; False for those of two models."""
        one, other = self._places[first], self._places[second]
        return one.model == other.model and self._models[one.model].has_equal_values(one.name, other.name)

    def changed_from(self, origin: Origin) -> Collection[str]:
        """Return the names of the tensors that may differ from those of the model at `origin`."""
        if self._base is None or self._base[0] != origin:
            return self.tensors.keys()
        return [name for name, place in self._places.items() if self._base[1].get(name) != place]

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the model that a tensor is read from, and its name there."""
        model, stored = self._of(name)
        return model.place_of(stored)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with the tensors."""
        used = dict.fromkeys(place.model for place in self._places.values())
        return tuple(file for number in used for file in self._models[number].files)

    def close(self) -> None:
        """Close all open files."""
        for model in self._models.values():
            model.close()
