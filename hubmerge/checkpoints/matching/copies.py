"""A model whose files have one of several tied tensors, read as a model that has each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint


class CheckpointWithCopies(Checkpoint):
    """The tensors of a model and copies of some of them under further names.

    Attributes:
        copies: the name of each copy, and the name of the tensor in the files that it has the values of.
    """

    def __init__(
        self, checkpoint: Checkpoint, copies: Mapping[str, str], config: Mapping[str, Any] | None = None
    ) -> None:
        added = {name: replace(checkpoint.tensors[stored], name=name) for name, stored in copies.items()}
        config = checkpoint.config if config is None else config
        super().__init__(
            checkpoint.origin,
            {**checkpoint.tensors, **added},
            config,
            {},
            notes=checkpoint.notes,
            names=checkpoint.names,
            metadata=checkpoint.metadata,
        )
        self.copies = dict(copies)
        self._checkpoint = checkpoint

    def _stored(self, name: str) -> str:
        return self.copies.get(name, name)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype and shape, in memory of its own."""
        return self._checkpoint.read(self._stored(name))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a tensor's values, flat, in pieces."""
        return self._checkpoint.read_pieces(self._stored(name), elements)

    def can_read_pieces(self, name: str) -> bool:
        """Return True if reading in pieces never needs the whole tensor in memory."""
        return self._checkpoint.can_read_pieces(self._stored(name))

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors have equal values, as far as they can be read now."""
        stored = self._stored(first), self._stored(second)
        return stored[0] == stored[1] or self._checkpoint.has_equal_values(*stored)

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the model that a tensor is read from, and its name there."""
        return self._checkpoint.place_of(self._stored(name))

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch the values of these tensors where they are not on this machine."""
        self._checkpoint.prepare(dict.fromkeys(map(self._stored, names)))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with the tensors."""
        return self._checkpoint.files

    def close(self) -> None:
        """Close all open files."""
        self._checkpoint.close()


def with_copies(checkpoint: Checkpoint, copies: Mapping[str, str]) -> Checkpoint:
    """Return a model with copies of some tensors, or the model itself if there are none."""
    return CheckpointWithCopies(checkpoint, copies) if copies else checkpoint
