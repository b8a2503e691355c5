"""Seeing a checkpoint that carries transformers' own names under the names its base model has in files.

`save_pretrained` writes the names a family has always had in files; `torch.save(model.state_dict())` writes those
that the class in memory uses at the time, and some classes of transformers 5 have changed them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.names import match_names, parameter_shapes
from hubmerge.checkpoints.model_class.model_class import ModelClass, model_class
from hubmerge.errors import CheckpointError


class RenamedCheckpoint(Checkpoint):
    """A checkpoint some of whose tensors go by other names; `names` maps each to that in its own files."""

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str]) -> None:
        tensors = {name: replace(checkpoint.tensors[stored], name=name) for name, stored in names.items()}
        super().__init__(checkpoint.label, tensors, checkpoint.config, {})
        self._checkpoint = checkpoint
        self._names = dict(names)

    def read(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype, in memory of its own."""
        return self._checkpoint.read(self._names.get(name, name))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """The tensor's values, flat, in pieces."""
        return self._checkpoint.read_pieces(self._names.get(name, name), elements)

    def in_pieces(self, name: str) -> bool:
        """Whether no more than a piece of the tensor has to be in memory."""
        return self._checkpoint.in_pieces(self._names.get(name, name))

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch what has to be fetched to read these tensors."""
        self._checkpoint.prepare([self._names.get(name, name) for name in names])

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors."""
        return self._checkpoint.files

    def close(self) -> None:
        """Let go of all open files."""
        self._checkpoint.close()


def in_names_of(base: Checkpoint, checkpoint: Checkpoint) -> Checkpoint | None:
    """`checkpoint` with the names of the files of `base` wherever both stand for one parameter of the base's class.

    None if that changes no name, or if transformers has no such class.
    """
    shapes = parameter_shapes(checkpoint.tensors)
    try:
        in_base, _ = names_in_memory(base.config, base)
        own_names = model_class(base.config, checkpoint.tensors).own_names
        own = {own_names.get(name, name): name for name in shapes}
        targets = {own_name: base.tensors[name].shape for own_name, name in in_base.items()}
        renaming = match_names({name: shapes[stored] for name, stored in own.items()}, targets, checkpoint.label)
    except CheckpointError:
        return None
    names: dict[str, str] = {}
    for own_name, stored in own.items():
        target = renaming.target(own_name, targets)
        names[stored if target is None else in_base[target]] = stored
    if len(names) != len(own) or all(name == stored for name, stored in names.items()):
        return None
    buffers = {name: name for name in checkpoint.tensors if name not in shapes and name not in names}
    return RenamedCheckpoint(checkpoint, {**names, **buffers})


def names_in_memory(config: Mapping[str, Any], checkpoint: Checkpoint) -> tuple[dict[str, str], ModelClass]:
    """What the class calls each tensor of a checkpoint, mapped to its name in files; and the class.

    Raises CheckpointError if transformers has no such class.
    """
    found = model_class(config, checkpoint.tensors)
    return {found.own_names.get(name, name): name for name in parameter_shapes(checkpoint.tensors)}, found
