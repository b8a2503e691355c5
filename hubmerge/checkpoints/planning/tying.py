"""Alignment of all checkpoints of a stream, with one decision for all on tensors that only some models tie.

`lm_head.weight` is the embedding table itself in one model and a matrix of its own in another. Where only some models
of a stream tie them, the stream is merged as one of untied models: a tied model has the table under both names.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint, first_architecture
from hubmerge.checkpoints.formats.layout import CONFIG_FILE
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint, Alignment
from hubmerge.checkpoints.matching.copies import CheckpointWithCopies
from hubmerge.checkpoints.matching.matcher import find_alignment
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.model_class.model_class import TYING, ModelClass, find_model_class
from hubmerge.checkpoints.model_class.untied_config import embedding_settings, untied_config
from hubmerge.checkpoints.planning.matrices import MatrixRule, weight_matrices
from hubmerge.checkpoints.planning.task_heads import find_head, places_of_head
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed

Ties = Mapping[str, str]
"""Tied tensors: alias to owner."""


@dataclass(frozen=True)
class AlignedModels:
    """The base model and all checkpoints, after the decision on tied tensors.

    Attributes:
        base: the base model; with copies of tied tensors if the stream is merged as one of untied models.
        rule: the kinds of its tensors.
        aligned: the checkpoints under its names.
        untied: True if tensors that the base model ties are tensors of their own in the merged model.
        notes: what was decided, one sentence each.
    """

    base: Checkpoint
    rule: MatrixRule
    aligned: tuple[AlignedCheckpoint, ...]
    untied: bool = False
    notes: tuple[str, ...] = field(default=())


def align_models(
    base: Checkpoint,
    rule: MatrixRule,
    checkpoints: Sequence[Checkpoint],
    *,
    selection: Selection = ALL_TENSORS,
    untied: bool | None = None,
    own_heads: bool = False,
) -> AlignedModels:
    """Align all checkpoints of a stream with the base model.

    Args:
        base: the base model; only its headers are needed.
        rule: the kinds of its tensors.
        checkpoints: the checkpoints of the stream.
        selection: the tensors to merge.
        untied: the decision of earlier steps; None to decide.
        own_heads: True if the caller keeps the heads that checkpoints have and the base model lacks, see `find_head`.

    Raises:
        CheckpointError: a checkpoint does not match the base model, or does not tie the tensors that the base model
            ties, and the merged model would compute something else without the tie.
    """
    stream = _Stream(base, rule, tuple(checkpoints), selection, own_heads)
    own = stream.differing_in_base()
    if not own:
        aligned = [stream.align(base, rule, checkpoint, rule.ties) for checkpoint in checkpoints]
        apart = {} if untied else stream.differing(aligned)
        if not (apart or untied):
            return stream.result(base, rule, aligned)
        if untied is False:
            name, checkpoint = next(iter(apart.items()))
            raise stream.not_tied(name, checkpoint)
        own = frozenset(apart)
    return stream.untied(own)


@dataclass(frozen=True)
class _Stream:
    base: Checkpoint
    rule: MatrixRule
    checkpoints: tuple[Checkpoint, ...]
    selection: Selection
    own_heads: bool

    def differing_in_base(self) -> frozenset[str]:
        """Return the aliases that the base model has with values of their own, although its class ties them."""
        stored = self.base.tensors
        pairs = ((alias, owner) for alias, owner in self.rule.ties.items() if alias in stored and owner in stored)
        return frozenset(alias for alias, owner in pairs if not self.base.has_equal_values(alias, owner))

    def differing(self, aligned: Sequence[AlignedCheckpoint]) -> dict[str, Checkpoint]:
        """Return the names that the base model ties and a checkpoint has with values of their own."""
        found: dict[str, Checkpoint] = {}
        for checkpoint, placed in zip(self.checkpoints, aligned, strict=True):
            alignment = placed.alignment
            for (alias, owner), name in zip(alignment.tied, alignment.tied_names, strict=True):
                if name not in found and (_is_untied(checkpoint) or not checkpoint.has_equal_values(alias, owner)):
                    found[name] = checkpoint
        return found

    def align(self, base: Checkpoint, rule: MatrixRule, checkpoint: Checkpoint, possible: Ties) -> AlignedCheckpoint:
        """Align a checkpoint, which may tie tensors that the base model does not tie.

        Args:
            base: the base model, or the base model with copies.
            rule: the kinds of its tensors.
            checkpoint: the checkpoint.
            possible: the ties of a tied model of this class, if the base model or a copy of it is one.
        """
        head = find_head(base, checkpoint, self.selection) if self.own_heads else ()
        selection = replace(self.selection, heads=places_of_head(base, checkpoint, head))
        match = partial(
            find_alignment,
            base,
            checkpoint,
            selection=selection,
            buffers=rule.buffers,
            spare=rule.spare,
            parts=rule.parts,
        )
        found = match(ties=rule.ties)
        if isinstance(found, Alignment) and not found.absent:
            return found.apply(checkpoint)
        if _ties_its_own(checkpoint, as_base=bool(possible)):
            possible = possible or _ties_if_tied(base)
            ties = {**possible, **rule.ties}
            tied = match(ties=ties)
            if isinstance(tied, Alignment):
                filled = [name for name in tied.stored_names if not _has(found, name)]
                if filled:
                    self._check_use(filled, checkpoint)
                return tied.apply(checkpoint)
        if isinstance(found, Alignment):
            return found.apply(checkpoint)
        raise found

    def untied(self, names: frozenset[str]) -> AlignedModels:
        """Align all checkpoints with the base model as a model without ties."""
        config, lost = untied_config(self.base.config, self.base.tensors), {}
        if config is not None:
            left = weight_matrices(config, self.base.tensors).ties
            lost = {alias: owner for alias, owner in self.rule.ties.items() if alias not in left}
        if config is None or not names <= {*lost, *lost.values()}:
            config = dict(self.base.config)
            lost = {alias: owner for alias, owner in self.rule.ties.items() if {alias, owner} & names}
            for checkpoint in self.checkpoints if names else ():
                self._check_use(names, checkpoint)
        copies = self._copies({*names, *lost, *lost.values()})
        base = CheckpointWithCopies(self.base, copies, config)
        rule = weight_matrices(config, base.tensors, untied={*names, *lost})
        rule = replace(rule, buffers=self.rule.buffers)
        aligned = [self.align(base, rule, checkpoint, self.rule.ties) for checkpoint in self.checkpoints]
        result = self.result(base, rule, aligned)
        return replace(result, untied=True, notes=(*self._notes(base, names), *result.notes))

    def result(self, base: Checkpoint, rule: MatrixRule, aligned: Sequence[AlignedCheckpoint]) -> AlignedModels:
        """Return the aligned models, with a note on checkpoints that tie what the base model does not tie."""
        tied: dict[tuple[str, ...], list[str]] = {}
        for placed in () if isinstance(base, CheckpointWithCopies) and base.copies else aligned:
            names = tuple(_tied_inside(placed.alignment, rule.ties))
            if names:
                tied.setdefault(names, []).append(placed.label)
        notes = tuple(
            f"{listed(labels, most=3)}: {listed(names, most=3)} is tied there, but not in the merged model"
            for names, labels in tied.items()
        )
        lacking = [placed.label for placed in aligned if rule.ties and _lacks_own_head(placed)]
        if lacking:
            text = "config.json does not tie the head, which is not in the files: it is tied in the merged model"
            notes = (*notes, f"{listed(lacking, most=3)}: {text}")
        return AlignedModels(base, rule, tuple(aligned), notes=notes)

    def _notes(self, base: CheckpointWithCopies, names: Collection[str]) -> list[str]:
        if base.config != self.base.config:
            written = f"; its config.json has {TYING}: false"
        elif base.config.get(TYING) is False:
            written = ""
        else:
            written = "; its config.json ties it, and transformers 5 does not because the values differ"
        own = listed(sorted(names or base.copies), most=3)
        if self.differing_in_base().issuperset(names):
            cause = f"{own} of {base.label} has values of its own, though its config.json ties it"
        else:
            cause = f"{own} is tied in the base model, but not in all checkpoints"
        return [f"{cause}: it is not tied in the merged model{written}"]

    def _copies(self, names: set[str]) -> dict[str, str]:
        stored = self.base.tensors
        found = {}
        for name in sorted(names - stored.keys()):
            owner = self.rule.ties.get(name, name)
            group = [owner, *(alias for alias, of in self.rule.ties.items() if of == owner)]
            source = next((one for one in group if one in stored), None)
            if source is not None:
                found[name] = source
        return found

    def _check_use(self, names: Collection[str], checkpoint: Checkpoint) -> None:
        """Check that a head which only one of two models ties is used in one way by both, unlike those of T5."""
        if not isinstance(find_model_class(checkpoint.config, checkpoint.tensors), ModelClass):
            return
        own = embedding_settings(checkpoint.config, checkpoint.tensors)
        for key, expected in embedding_settings(self.base.config, self.base.tensors).items():
            if own.get(key) != expected:
                raise checkpoint.origin.in_file(CONFIG_FILE).error(
                    f"{key} is {json.dumps(own.get(key))}, expected {json.dumps(expected)} as in the base model "
                    f"{self.base.label}, whose class uses {listed(sorted(names), most=3)} in another way",
                    hint=self._without(names),
                    tensor=min(names),
                )

    def not_tied(self, name: str, checkpoint: Checkpoint) -> CheckpointError:
        """Return the error for a checkpoint that does not tie what the base model and the steps so far tie."""
        return checkpoint.origin.error(
            f"{name!r} is a tensor of its own, but it is tied in the base model {self.base.label} and in the "
            "steps merged so far",
            hint=f"{self._without([name])}; or merge the checkpoints anew into another target repo",
            tensor=name,
        )

    def _without(self, names: Iterable[str]) -> str:
        return (
            f"keep the base model's: {self.selection.excluding(sorted(names))}; or remove the checkpoint from `models`"
        )


def _lacks_own_head(placed: AlignedCheckpoint) -> bool:
    """Return True if a checkpoint says that it ties nothing, and has only one of several tied tensors."""
    return placed.config.get(TYING) is False and not placed.alignment.tied and _has_language_head(placed.config)


def _has_language_head(config: Mapping[str, Any]) -> bool:
    """Return True if a config names a class with a head for tokens."""
    named = first_architecture(config) or ""
    return named.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))


def _tied_inside(alignment: Alignment, ties: Ties) -> Iterator[str]:
    """Yield the tensors of the base model that have the values of another one, although they are not tied."""
    names: dict[str, list[str]] = {}
    for name, stored in alignment.stored_names.items():
        names.setdefault(stored, []).append(name)
    for stored, found in names.items():
        own = next((name for name in found if name.endswith(stored) or stored.endswith(name)), found[0])
        yield from (name for name in found if name != own and ties.get(name) != own and ties.get(own) != name)


def _has(found: Alignment | CheckpointError, name: str) -> bool:
    return isinstance(found, Alignment) and name in found.stored_names


def _is_untied(checkpoint: Checkpoint) -> bool:
    """Return True if the config of a checkpoint says that its class ties nothing."""
    if not checkpoint.config.get("architectures"):
        return False
    found = find_model_class(checkpoint.config, checkpoint.tensors)
    return isinstance(found, ModelClass) and not found.ties


def _ties_its_own(checkpoint: Checkpoint, *, as_base: bool) -> bool:
    """Return True if the class of a checkpoint ties tensors; without a class in its config, if the base model does."""
    if not checkpoint.config.get("architectures"):
        return as_base
    found = find_model_class(checkpoint.config, checkpoint.tensors)
    return isinstance(found, ModelClass) and bool(found.ties)


def _ties_if_tied(base: Checkpoint) -> Ties:
    """Return the ties that the base model would have if its config tied embeddings."""
    return weight_matrices({**base.config, TYING: True}, base.tensors).ties
