"""Place of each tensor of a checkpoint in the base model, under one renaming of its names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import Alignment, Ignored
from hubmerge.checkpoints.matching.buffers import Buffers
from hubmerge.checkpoints.matching.components import Parts
from hubmerge.checkpoints.matching.mismatches import Mismatches, matched_twice, not_floating
from hubmerge.checkpoints.matching.names import Renaming, buffer_reason, parameter_shapes
from hubmerge.checkpoints.matching.selection import Selection
from hubmerge.checkpoints.matching.spare import Spare
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError


@dataclass(frozen=True)
class Kinds:
    """Facts about the base model's class.

    Attributes:
        ties: tied tensors: alias to owner.
        buffers: tensors that are no weights.
        spare: tensors that the class does not use.
        parts: models inside of the model.
    """

    ties: Mapping[str, str]
    buffers: Buffers
    spare: Spare
    parts: Parts

    def partners(self, name: str) -> list[str]:
        """Return the names tied to `name`."""
        owner = self.ties.get(name, name)
        group = [owner, *(alias for alias, of in self.ties.items() if of == owner)]
        return [partner for partner in group if partner != name] if name in group and len(group) > 1 else []


class Placement:
    """One attempt to place a checkpoint's tensors under one renaming.

    `stored_names`, `tied` and `mismatched` grow while tensors are placed: name in the base model to name in the
    checkpoint; name in the checkpoint to its name in the base model's class and to its partner in the base model; and
    as the first for tensors of another shape. `filled` are tensors of the base model that have a tied tensor's values.
    """

    def __init__(
        self,
        base: Checkpoint,
        checkpoint: Checkpoint,
        selection: Selection,
        kinds: Kinds,
        renaming: Renaming,
    ) -> None:
        self.base = base
        self.checkpoint = checkpoint
        self.selection = selection
        self.kinds, self.buffers = kinds, kinds.buffers
        self.renaming = renaming
        shapes = parameter_shapes(base.tensors)
        self.targets = {name: shape for name, shape in shapes.items() if not self.buffers.is_kept(name)}
        self.stored_names: dict[str, str] = {}
        self.ignored: list[Ignored] = []
        self.tied: dict[str, tuple[str, str]] = {}
        self.mismatched: dict[str, str] = {}
        self.unexpected: list[str] = []
        self.filled: set[str] = set()

    def result(self) -> Alignment | CheckpointError:
        """Return the place of every tensor, or the error to raise."""
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
        missing = [
            name for name in missing if name not in self.buffers.statistics and not self.kinds.spare.reason(name)
        ]
        error = self._mismatch_error(selected, missing)
        if error is not None:
            return error
        tied = self._tied_pairs()
        return Alignment(
            label=self.checkpoint.label,
            specs={name: info.spec for name, info in self.checkpoint.tensors.items()},
            stored_names={name: self.stored_names[name] for name in self.base.tensors if name in self.stored_names},
            ignored=tuple(self.ignored),
            absent=tuple(dict.fromkeys(map(self.kinds.parts.component_of, missing))),
            layout=str(self.renaming),
            tied=tuple(tied),
            tied_names=tuple(tied.values()),
            heads=self.selection.heads.intersection(self.targets),
        )

    def _tied_pairs(self) -> dict[tuple[str, str], str]:
        """Return pairs of names in the checkpoint's files of which only one is merged, and the first one's name."""
        merged_from = self.stored_names
        pairs = {
            (stored, merged_from[target]): own for stored, (own, target) in self.tied.items() if target in merged_from
        }
        for alias, owner in self.kinds.ties.items():
            if alias in merged_from and owner in merged_from:
                pairs.setdefault((merged_from[alias], merged_from[owner]), alias)
        return {pair: own for pair, own in pairs.items() if pair[0] != pair[1]}

    def _place(self, info: TensorInfo) -> CheckpointError | None:
        """Find the tensor's place in the base model, or the reason to ignore it."""
        target = self.renaming.target(info.name, self.base.tensors)
        if target is None:
            names = (info.name, *self.renaming.candidates(info.name))
            reason = buffer_reason(info) or next(filter(None, map(self.buffers.reason, names)), None)
            reason = reason or self._reason_for_unexpected(info.name) or self._spare_reason(names)
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
            elif (reason := self.kinds.spare.reason(target)) is not None:
                self.ignored.append(Ignored(info.name, f"{reason}, of another shape"))
            elif not info.dtype.is_floating_point:  # codes of several numbers in one integer
                return not_floating(self.base, self.checkpoint, target, info)
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
            for partner in self.kinds.partners(candidate):
                if partner in self.base.tensors:
                    self.tied[name] = candidate, partner
                    return f"tied to {partner}"
        return None

    def _spare_reason(self, names: Iterable[str]) -> str | None:
        reason = next(filter(None, map(self.kinds.spare.reason, names)), None)
        return None if reason is None else f"{reason}, and the base model lacks it"

    def _saved_along_error(self) -> CheckpointError | None:
        """Return the error of an adapter that saved only some of a group of tied tensors.

        peft runs this adapter with two different tensors where the merged model has one.
        """
        infos = [info for info in self.checkpoint.tensors.values() if info.saved_in_adapter]
        saved = [self.renaming.target(info.name, self.targets) or self._first(info.name) for info in infos]
        for name in filter(self.selection.covers, saved):
            for partner in self.kinds.partners(name):
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
                        self.filled.add(name)

    def _stored_under(self, name: str) -> Iterator[str]:
        """Yield the tensors of the checkpoint that are tied to `name` of the base model."""
        yield from (self.stored_names[partner] for partner in self.kinds.partners(name) if partner in self.stored_names)
        yield from (stored for stored, (_, partner) in self.tied.items() if partner == name)

    def _mismatch_error(self, selected: list[str], missing: list[str]) -> CheckpointError | None:
        component_of = self.kinds.parts.component_of
        own = self.stored_names.keys() - self.filled
        present = {component_of(name) for name in selected if name in own}
        mismatches = Mismatches(
            self.base,
            self.checkpoint,
            self.selection,
            self.renaming,
            self.kinds.parts,
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
