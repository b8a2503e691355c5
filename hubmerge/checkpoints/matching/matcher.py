"""Matching a checkpoint's tensors with the base model's, from names, shapes and configs.

No tensor is lost in silence: each one is merged, or listed in `Alignment.ignored` with the reason, or the checkpoint is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint, Alignment, Ignored
from hubmerge.checkpoints.matching.buffers import NO_BUFFERS, Buffers
from hubmerge.checkpoints.matching.components import component_of
from hubmerge.checkpoints.matching.memory_names import names_in_files
from hubmerge.checkpoints.matching.mismatches import Mismatches, matched_twice, not_floating
from hubmerge.checkpoints.matching.names import (
    Renaming,
    ambiguous_names,
    best_renamings,
    buffer_reason,
    parameter_shapes,
)
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError


def match(
    base: Checkpoint,
    checkpoint: Checkpoint,
    *,
    selection: Selection = ALL_TENSORS,
    ties: Mapping[str, str] | None = None,
    buffers: Buffers = NO_BUFFERS,
) -> Alignment:
    """Find the place of each of the checkpoint's tensors in the base model, without reading a value.

    Buffers are ignored. A component of the base model (the text tower, a head) that the checkpoint lacks as a whole
    stays the base model's. Tensors outside `selection` may be missing, unknown to the base model or of another shape.

    A checkpoint whose names fit by no prefix is matched by the names that the base model's class has in memory: those
    are the names of a saved state dict.

    Args:
        base: the base model; only its headers are needed.
        checkpoint: the fine-tuned model; only its headers are needed.
        selection: the tensors to merge, by their names in the base model.
        ties: tied tensors of the base model's class: alias to owner.
        buffers: tensors of the base model's class that are no weights.

    Raises:
        CheckpointError: a tensor is unknown to the base model, is missing inside a component that the checkpoint has,
            or has another shape; or `selection` covers no tensor of the base model.
    """
    found = find_alignment(base, checkpoint, selection=selection, ties=ties, buffers=buffers)
    if isinstance(found, Alignment):
        return found
    raise found


def find_alignment(
    base: Checkpoint,
    checkpoint: Checkpoint,
    *,
    selection: Selection = ALL_TENSORS,
    ties: Mapping[str, str] | None = None,
    buffers: Buffers = NO_BUFFERS,
) -> Alignment | CheckpointError:
    """Return the result of `match`, or the error that it would raise, for callers that have another way.

    Raises:
        CheckpointError: `selection` covers no tensor of the base model.
    """
    selection.check(parameter_shapes(base.tensors), base.origin)
    kinds = _Kinds(ties or {}, buffers)
    found = _match_names(base, checkpoint, selection, kinds)
    names = None if isinstance(found, Alignment) else names_in_files(base, checkpoint)
    return found if names is None else _match_memory_names(base, checkpoint, selection, kinds, names)


def align(
    base: Checkpoint,
    checkpoint: Checkpoint,
    *,
    selection: Selection = ALL_TENSORS,
    ties: Mapping[str, str] | None = None,
    buffers: Buffers = NO_BUFFERS,
) -> AlignedCheckpoint:
    """Match a checkpoint with the base model and return it under the base model's names.

    Args and errors are those of `match`.
    """
    return match(base, checkpoint, selection=selection, ties=ties, buffers=buffers).apply(checkpoint)


def _match_names(
    base: Checkpoint, checkpoint: Checkpoint, selection: Selection, kinds: _Kinds
) -> Alignment | CheckpointError:
    """Match by names up to a prefix; return the error to raise if that is not possible."""
    renamings = best_renamings(parameter_shapes(checkpoint.tensors), parameter_shapes(base.tensors))
    if len(renamings) > 1:
        return ambiguous_names(checkpoint.origin, renamings)
    return _Matcher(base, checkpoint, selection, kinds, renamings[0]).result()


def _match_memory_names(
    base: Checkpoint, checkpoint: Checkpoint, selection: Selection, kinds: _Kinds, names: Mapping[str, str]
) -> Alignment | CheckpointError:
    """Match under the new `names` of `names_in_files`; return the error to raise if that is not possible."""
    tensors = {name: replace(checkpoint.tensors[stored], name=name) for name, stored in names.items()}
    renamed = Checkpoint(checkpoint.origin, tensors, checkpoint.config, {})
    found = _match_names(base, renamed, selection, kinds)
    if not isinstance(found, Alignment):
        return found
    return replace(
        found,
        specs={name: info.spec for name, info in checkpoint.tensors.items()},
        stored_names={name: names[stored] for name, stored in found.stored_names.items()},
        layout="names that the class has in memory",
        tied=tuple((names[alias], names[owner]) for alias, owner in found.tied),
    )


@dataclass(frozen=True)
class _Kinds:
    """Tied tensors of the base model's class (alias to owner), and those that are no weights."""

    ties: Mapping[str, str]
    buffers: Buffers


class _Matcher:
    """One attempt to place a checkpoint's tensors under one renaming.

    `stored_names`, `tied` and `mismatched` grow while tensors are placed: name in the base model to name in the
    checkpoint, name in the checkpoint to its partner in the base model, and as the first for tensors of another shape.
    """

    def __init__(
        self,
        base: Checkpoint,
        checkpoint: Checkpoint,
        selection: Selection,
        kinds: _Kinds,
        renaming: Renaming,
    ) -> None:
        self.base = base
        self.checkpoint = checkpoint
        self.selection = selection
        self.ties, self.buffers = kinds.ties, kinds.buffers
        self.renaming = renaming
        shapes = parameter_shapes(base.tensors)
        self.targets = {name: shape for name, shape in shapes.items() if not self.buffers.is_computed(name)}
        self.stored_names: dict[str, str] = {}
        self.ignored: list[Ignored] = []
        self.tied: dict[str, str] = {}
        self.mismatched: dict[str, str] = {}
        self.unexpected: list[str] = []

    def result(self) -> Alignment | CheckpointError:
        for info in self.checkpoint.tensors.values():
            error = self._place(info)
            if error is not None:
                return error
        selected = [name for name in self.targets if self.selection.covers(name)]
        error = self._saved_along_error()
        if error is not None:
            return error
        self._use_tied_tensors(selected)
        missing = [name for name in selected if name not in self.stored_names and name not in self.mismatched]
        missing = [name for name in missing if name not in self.buffers.statistics]
        error = self._mismatch_error(selected, missing)
        if error is not None:
            return error
        return Alignment(
            label=self.checkpoint.label,
            specs={name: info.spec for name, info in self.checkpoint.tensors.items()},
            stored_names={name: self.stored_names[name] for name in self.base.tensors if name in self.stored_names},
            ignored=tuple(self.ignored),
            absent=tuple(dict.fromkeys(component_of(name) for name in missing)),
            layout=str(self.renaming),
            tied=tuple(dict.fromkeys(self._tied_pairs())),
        )

    def _tied_pairs(self) -> Iterator[tuple[str, str]]:
        """Pairs of names in the checkpoint's files of which only one is merged."""
        merged_from = self.stored_names
        pairs = [(stored, merged_from[target]) for stored, target in self.tied.items() if target in merged_from]
        both = ((alias, owner) for alias, owner in self.ties.items() if alias in merged_from and owner in merged_from)
        pairs += [(merged_from[alias], merged_from[owner]) for alias, owner in both]
        return (pair for pair in pairs if pair[0] != pair[1])

    def _place(self, info: TensorInfo) -> CheckpointError | None:
        """Find the tensor's place in the base model, or the reason to ignore it."""
        target = self.renaming.target(info.name, self.base.tensors)
        if target is None:
            names = (info.name, *self.renaming.candidates(info.name))
            reason = buffer_reason(info) or next(filter(None, map(self.buffers.reason, names)), None)
            reason = reason or self._reason_for_unexpected(info.name)
        elif target in self.targets:
            reason = self.selection.reason_against(target)
            if reason is None:
                return self._take(info, target)
        else:
            reason = buffer_reason(self.base.tensors[target]) or self.buffers.reason(target)
        if reason is None:
            self.unexpected.append(info.name)
        else:
            self.ignored.append(Ignored(info.name, reason))
        return None

    def _take(self, info: TensorInfo, target: str) -> CheckpointError | None:
        expected = self.base.tensors[target]
        if target in self.stored_names:
            return matched_twice(self.base, self.checkpoint, target, (self.stored_names[target], info.name))
        if info.shape != expected.shape:
            if target in self.buffers.statistics:
                self.ignored.append(Ignored(info.name, "a buffer of another shape"))
            else:
                self.mismatched[target] = info.name
        elif not info.dtype.is_floating_point:
            return not_floating(self.base, self.checkpoint, target, info)
        else:
            self.stored_names[target] = info.name
        return None

    def _reason_for_unexpected(self, name: str) -> str | None:
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
        """Return the names tied to `name`."""
        owner = self.ties.get(name, name)
        group = [owner, *(alias for alias, of in self.ties.items() if of == owner)]
        return [partner for partner in group if partner != name] if name in group and len(group) > 1 else []

    def _saved_along_error(self) -> CheckpointError | None:
        """Return the error of an adapter that saved only some of a group of tied tensors.

        peft runs this adapter with two different tensors where the merged model has one.
        """
        infos = [info for info in self.checkpoint.tensors.values() if info.saved_in_adapter]
        saved = [self.renaming.target(info.name, self.targets) or self._first(info.name) for info in infos]
        for name in filter(self.selection.covers, saved):
            for partner in self._partners(name):
                if partner not in saved:
                    return self.checkpoint.origin.error(
                        f"the adapter saved {name!r} but not {partner!r}, though the base model's config ties them",
                        hint=f'exclude it: tensors: {{exclude: ["{name}"]}}; or train the adapter again with '
                        "ensure_weight_tying=True",
                        tensor=name,
                    )
        return None

    def _first(self, name: str) -> str:
        return next(self.renaming.candidates(name))

    def _use_tied_tensors(self, selected: list[str]) -> None:
        """Fill places that are still empty with a tied tensor of the checkpoint that has the right shape."""
        for name in selected:
            if name not in self.stored_names:
                for stored in self._stored_under(name):
                    if self.checkpoint.tensors[stored].shape == self.targets[name]:
                        self.stored_names[name] = stored

    def _stored_under(self, name: str) -> Iterator[str]:
        """Yield the tensors of the checkpoint that are tied to `name` of the base model."""
        yield from (self.stored_names[partner] for partner in self._partners(name) if partner in self.stored_names)
        yield from (stored for stored, partner in self.tied.items() if partner == name)

    def _mismatch_error(self, selected: list[str], missing: list[str]) -> CheckpointError | None:
        present = {component_of(name) for name in selected if name in self.stored_names}
        mismatches = Mismatches(
            self.base,
            self.checkpoint,
            self.selection,
            self.renaming,
            matched=self.stored_names,
            mismatched=self.mismatched,
            unexpected=self.unexpected,
            missing=[name for name in missing if component_of(name) in present],
        )
        if mismatches:
            return mismatches.error()
        if present:
            return None
        return self.checkpoint.origin.error(
            f"none of its {len(self.checkpoint.tensors)} tensors matches one of the "
            f"{len(selected)} tensors to be merged in the base model {self.base.label}",
            hint="set base_model to the model that this checkpoint was fine-tuned from",
        )
