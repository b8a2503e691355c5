"""Giving a checkpoint's tensors the names they have in the base model's files, and refusing what does not fit.

Nothing is lost in silence: a tensor of the checkpoint is either merged, or listed in `ignored` with the reason,
or the checkpoint is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.canonical import RenamedCheckpoint, in_names_of
from hubmerge.checkpoints.matching.components import component_of
from hubmerge.checkpoints.matching.mismatches import Misfits
from hubmerge.checkpoints.matching.names import Renaming, buffer_reason, match_names, parameter_shapes
from hubmerge.checkpoints.matching.selection import EVERYTHING, Selection
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError


@dataclass(frozen=True)
class Ignored:
    """A tensor that takes no part in the merge, under the name it has in the file, and why."""

    name: str
    reason: str


class AlignedCheckpoint(Checkpoint):
    """A checkpoint seen under the base model's names; `tensors` holds only what can be merged.

    `ignored` lists the checkpoint's other tensors, `absent` the base model's components that the checkpoint
    lacks as a whole, `renaming` tells how the names were matched. `tied` are pairs of names in the checkpoint's
    own files whose values are said to be the same, and of which only one is used.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        stored_names: Mapping[str, str],
        *,
        renaming: Renaming,
        ignored: tuple[Ignored, ...],
        absent: tuple[str, ...],
        tied: tuple[tuple[str, str], ...] = (),
    ) -> None:
        tensors = {name: replace(checkpoint.tensors[stored], name=name) for name, stored in stored_names.items()}
        super().__init__(checkpoint.label, tensors, checkpoint.config, {})
        self._checkpoint = checkpoint
        self._stored_names = dict(stored_names)
        self.renaming = renaming
        self.ignored = ignored
        self.absent = absent
        self.tied = tied

    def read(self, name: str) -> torch.Tensor:
        """The tensor that has this name in the base model, in its stored dtype, in memory of its own."""
        return self._checkpoint.read(self._stored_names.get(name, name))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """The tensor's values, flat, in pieces."""
        return self._checkpoint.read_pieces(self._stored_names.get(name, name), elements)

    def in_pieces(self, name: str) -> bool:
        """Whether no more than a piece of the tensor has to be in memory."""
        return self._checkpoint.in_pieces(self._stored_names.get(name, name))

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch what has to be fetched to read these tensors."""
        self._checkpoint.prepare([self._stored_names[name] for name in names])

    def stored_name(self, name: str) -> str:
        """What the tensor is called in the checkpoint's own files."""
        return self._stored_names[name]

    @property
    def layout(self) -> str:
        """How the names in the checkpoint's files differ from the base model's, in words."""
        in_memory = isinstance(self._checkpoint, RenamedCheckpoint)
        return "names that the class has in memory" if in_memory else str(self.renaming)

    @property
    def stored_tensors(self) -> set[str]:
        """The names of all tensors in the checkpoint's own files."""
        return set(self._checkpoint.tensors)

    def check_ties(self) -> None:
        """Check that of tensors that are said to share their values none is lost that differs.

        Raises CheckpointError naming the pair.
        """
        for alias, owner in self.tied:
            if not torch.equal(self._checkpoint.read(alias), self._checkpoint.read(owner)):
                raise CheckpointError(
                    f"{self.label}: tensors {alias!r} and {owner!r} differ, though the base model's config ties them",
                    hint="merge a checkpoint whose embeddings are tied as the base model's are",
                )

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors."""
        return self._checkpoint.files

    def close(self) -> None:
        """Let go of all open files."""
        self._checkpoint.close()


def align(
    base: Checkpoint,
    checkpoint: Checkpoint,
    *,
    selection: Selection = EVERYTHING,
    ties: Mapping[str, str] | None = None,
) -> AlignedCheckpoint:
    """See `checkpoint` under the names of the files of `base`.

    Buffers are ignored. A component of the base model (the text tower, a head) that the checkpoint lacks as a
    whole is left to the base. Tensors outside `selection` may be missing, surplus or of another shape. `ties`
    maps a name to the one it shares its values with, as far as the model's class says so.

    Names that fit by no prefix are looked up in the class of the base model: a state dict saved as it is in
    memory may have others than files.

    Raises CheckpointError naming the tensor if the checkpoint holds one that the base lacks, lacks one inside a
    component that it has, or holds one of another shape; also if `selection` leaves nothing of the base model.
    """
    selection.check(parameter_shapes(base.tensors), base.label)
    try:
        return _Alignment(base, checkpoint, selection, ties or {}).result()
    except CheckpointError:
        renamed = in_names_of(base, checkpoint)
        if renamed is None:
            raise
        return _Alignment(base, renamed, selection, ties or {}).result()


class _Alignment:
    def __init__(self, base: Checkpoint, checkpoint: Checkpoint, selection: Selection, ties: Mapping[str, str]) -> None:
        self.base = base
        self.checkpoint = checkpoint
        self.selection = selection
        self.ties = ties
        self.targets = parameter_shapes(base.tensors)
        self.renaming = match_names(parameter_shapes(checkpoint.tensors), self.targets, checkpoint.label)
        self.stored_names: dict[str, str] = {}
        self.ignored: list[Ignored] = []
        self.tied: dict[str, str] = {}
        self.misshapen: dict[str, str] = {}

    def result(self) -> AlignedCheckpoint:
        surplus = [info.name for info in self.checkpoint.tensors.values() if not self._place(info)]
        self._check_saved_along()
        absent = self._fill_in(surplus)
        return AlignedCheckpoint(
            self.checkpoint,
            {name: self.stored_names[name] for name in self.base.tensors if name in self.stored_names},
            renaming=self.renaming,
            ignored=tuple(self.ignored),
            absent=absent,
            tied=tuple((name, stored) for name, stored in self._tied_pairs() if name != stored),
        )

    def _tied_pairs(self) -> Iterator[tuple[str, str]]:
        for stored, target in self.tied.items():
            if target in self.stored_names:
                yield stored, self.stored_names[target]

    def _place(self, info: TensorInfo) -> bool:
        """Find the tensor's place or a reason to ignore it; False if there is neither."""
        target = self.renaming.target(info.name, self.base.tensors)
        if target is None:
            reason = buffer_reason(info) or self._reason_for_surplus(info.name)
        elif target in self.targets:
            reason = self.selection.reason_against(target)
            if reason is None:
                self._take(info, target)
                return True
        else:
            reason = buffer_reason(self.base.tensors[target])
        if reason is None:
            return False
        self.ignored.append(Ignored(info.name, reason))
        return True

    def _take(self, info: TensorInfo, target: str) -> None:
        wanted = self.base.tensors[target]
        if target in self.stored_names:
            raise CheckpointError(
                f"{self.checkpoint.label}: tensors {self.stored_names[target]!r} and {info.name!r} both stand for "
                f"{target!r} of the base model {self.base.label}",
                hint="save the checkpoint again with one layout of names",
            )
        if info.shape != wanted.shape:
            self.misshapen[target] = info.name
            return
        if not info.dtype.is_floating_point:
            raise CheckpointError(
                f"{self.checkpoint.label}: tensor {info.name!r} holds {info.dtype}, the base model "
                f"{self.base.label} has {wanted.dtype} in {target!r}",
                hint="merge an unquantised version of this checkpoint",
            )
        self.stored_names[target] = info.name

    def _reason_for_surplus(self, name: str) -> str | None:
        for candidate in self.renaming.candidates(name):
            against = self.selection.reason_against(candidate)
            if against is not None:
                return against
            for partner in self._partners(candidate):
                if partner in self.base.tensors:
                    self.tied[name] = partner
                    return f"tied to {partner}"
        return None

    def _partners(self, name: str) -> list[str]:
        owner = self.ties.get(name, name)
        group = [owner, *(alias for alias, of in self.ties.items() if of == owner)]
        return [partner for partner in group if partner != name] if name in group and len(group) > 1 else []

    def _check_saved_along(self) -> None:
        """Refuse an adapter that saved only some of tied tensors: peft runs it with the model's own others."""
        infos = [info for info in self.checkpoint.tensors.values() if info.saved_along]
        saved = [self.renaming.target(info.name, self.targets) or self._first(info.name) for info in infos]
        for name in filter(self.selection.covers, saved):
            for partner in self._partners(name):
                if partner not in saved:
                    raise CheckpointError(
                        f"{self.checkpoint.label}: the adapter saved {name!r} and not {partner!r}, though the base "
                        "model's config ties the two",
                        hint=f'leave it out: tensors: {{exclude: ["{name}"]}}; or train the adapter with '
                        "ensure_weight_tying=True, if peft ties those of this model",
                    )

    def _first(self, name: str) -> str:
        return next(self.renaming.candidates(name))

    def _stored_under(self, name: str) -> Iterator[str]:
        """Where else in the checkpoint's files the values of a tensor stand, as far as the class says."""
        yield from (self.stored_names[partner] for partner in self._partners(name) if partner in self.stored_names)
        yield from (stored for stored, partner in self.tied.items() if partner == name)

    def _fill_in(self, surplus: list[str]) -> tuple[str, ...]:
        """Take tied tensors from their partners; refuse misfits; the components that are absent as a whole."""
        wanted = [name for name in self.targets if self.selection.covers(name)]
        for name in wanted:
            if name not in self.stored_names:
                for stored in self._stored_under(name):
                    if self.checkpoint.tensors[stored].shape == self.targets[name]:
                        self.stored_names[name] = stored
        present = {component_of(name) for name in wanted if name in self.stored_names}
        missing = [name for name in wanted if name not in self.stored_names and name not in self.misshapen]
        gaps = [name for name in missing if component_of(name) in present]
        misfits = Misfits(
            self.base,
            self.checkpoint,
            self.selection,
            self.renaming,
            placed=self.stored_names,
            misshapen=self.misshapen,
            surplus=surplus,
            gaps=gaps,
        )
        if misfits:
            raise misfits.error()
        if not present:
            raise CheckpointError(
                f"{self.checkpoint.label}: none of its {len(self.checkpoint.tensors)} tensors is one of the "
                f"{len(wanted)} to be merged in the base model {self.base.label}",
                hint="check that base model and checkpoint are of the same architecture",
            )
        return tuple(dict.fromkeys(component_of(name) for name in missing))
