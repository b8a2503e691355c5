"""Alignment: the place of a checkpoint's tensors in the base model, and the checkpoint read under the base's names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorSpec, describe_shape
from hubmerge.errors import CheckpointError


@dataclass(frozen=True)
class Ignored:
    """A tensor of a checkpoint that takes no part in the merge.

    Attributes:
        name: the tensor's name.
        reason: why it is not merged, in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Alignment:
    """The place of each tensor of a checkpoint in the base model, decided from names, shapes and configs alone.

    Attributes:
        label: the checkpoint's name in messages.
        specs: name, dtype and shape of every tensor in the checkpoint's files.
        stored_names: each tensor that can be merged: its name in the base model and its name in the checkpoint's files.
        ignored: the other tensors of the checkpoint, with reasons.
        absent: components of the base model that the checkpoint lacks as a whole.
        layout: the difference between the names in the checkpoint's files and the base model's, in words.
        tied: pairs of names in the checkpoint's files that must have equal values, because only one is merged.
        tied_names: the name in the base model, or the one that it would have, of the first of each pair.
        heads: tensors of the base model that the checkpoint has in a head of its own, which is not merged.
    """

    label: str
    specs: Mapping[str, TensorSpec]
    stored_names: Mapping[str, str]
    ignored: tuple[Ignored, ...]
    absent: tuple[str, ...]
    layout: str
    tied: tuple[tuple[str, str], ...] = ()
    tied_names: tuple[str, ...] = ()
    heads: frozenset[str] = frozenset()

    def apply(self, checkpoint: Checkpoint) -> AlignedCheckpoint:
        """Return `checkpoint` under the base model's names.

        Args:
            checkpoint: the aligned checkpoint itself, opened again: the same names, shapes and dtypes.

        Raises:
            CheckpointError: a name, shape or dtype differs from the one that was planned.
        """
        found = {name: info.spec for name, info in checkpoint.tensors.items()}
        if found != self.specs:
            raise self._changed(checkpoint.origin, found)
        return AlignedCheckpoint(checkpoint, self)

    def _changed(self, origin: Origin, found: Mapping[str, TensorSpec]) -> CheckpointError:
        name = next(name for name in (*self.specs, *found) if found.get(name) != self.specs.get(name))
        return origin.error(
            f"the files changed after the merge was planned: tensor {name!r} was "
            f"{_described(self.specs.get(name))}, now it is {_described(found.get(name))}",
            hint="run the command again to plan with the present files",
            tensor=name,
        )


class AlignedCheckpoint(Checkpoint):
    """A checkpoint read under the base model's names; `tensors` has only what can be merged."""

    def __init__(self, checkpoint: Checkpoint, alignment: Alignment) -> None:
        places = alignment.stored_names.items()
        tensors = {name: replace(checkpoint.tensors[stored], name=name) for name, stored in places}
        super().__init__(
            checkpoint.origin, tensors, checkpoint.config, {}, notes=checkpoint.notes, names=checkpoint.names
        )
        self.alignment = alignment
        self._checkpoint = checkpoint
        self._stored_names = alignment.stored_names

    @property
    def ignored(self) -> tuple[Ignored, ...]:
        """Tensors of the checkpoint that are not merged, with reasons."""
        return self.alignment.ignored

    @property
    def absent(self) -> tuple[str, ...]:
        """Components of the base model that the checkpoint lacks as a whole."""
        return self.alignment.absent

    @property
    def layout(self) -> str:
        """Difference between the names in the checkpoint's files and the base model's, in words."""
        return self.alignment.layout

    @property
    def stored_tensors(self) -> set[str]:
        """Names of all tensors in the checkpoint's files."""
        return set(self.alignment.specs)

    def stored_name(self, name: str) -> str:
        """Return the name in the checkpoint's files of a tensor of the base model."""
        return self._stored_names[name]

    def read(self, name: str) -> torch.Tensor:
        """Return the tensor with this name in the base model, in its stored dtype, in memory of its own."""
        return self._checkpoint.read(self._stored_names.get(name, name))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Return the tensor's values, flat, in pieces."""
        return self._checkpoint.read_pieces(self._stored_names.get(name, name), elements)

    def can_read_pieces(self, name: str) -> bool:
        """Return True if reading in pieces never needs the whole tensor in memory."""
        return self._checkpoint.can_read_pieces(self._stored_names.get(name, name))

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the model that a tensor is read from, and the name that messages have: that of the base model."""
        label, stored = self._checkpoint.place_of(self._stored_names.get(name, name))
        return (label, name) if label == self.label else (label, stored)

    def changed_from(self, origin: Origin) -> Collection[str]:
        """Return the names of the tensors that may differ from those of the model at `origin`."""
        changed = frozenset(self._checkpoint.changed_from(origin))
        return [name for name, stored in self._stored_names.items() if stored in changed]

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch the values of these tensors where they are not on this machine."""
        self._checkpoint.prepare(dict.fromkeys(self._stored_names[name] for name in names))

    def check_ties(self) -> None:
        """Compare the values of tied tensors, of which only one is merged.

        Raises:
            CheckpointError: the values of a pair differ.
        """
        for (alias, owner), name in zip(self.alignment.tied, self.alignment.tied_names, strict=True):
            if not torch.equal(self._checkpoint.read(alias), self._checkpoint.read(owner)):
                raise self.origin.error(
                    f"tensors {alias!r} and {owner!r} differ, though the base model's config ties them",
                    hint=f'leave one of them out of the merge: tensors: {{exclude: ["{name}"]}}',
                    tensor=alias,
                )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files with the tensors."""
        return self._checkpoint.files

    def close(self) -> None:
        """Close all open files."""
        self._checkpoint.close()


def _described(spec: TensorSpec | None) -> str:
    return "missing" if spec is None else f"{describe_shape(spec.shape)}, {str(spec.dtype).removeprefix('torch.')}"
