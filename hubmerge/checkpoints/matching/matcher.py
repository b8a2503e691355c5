"""Matching a checkpoint's tensors with the base model's, from names, shapes and configs.

No tensor is lost in silence: each one is merged, or listed in `Alignment.ignored` with the reason, or the checkpoint is
refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint, Alignment
from hubmerge.checkpoints.matching.buffers import NO_BUFFERS, Buffers
from hubmerge.checkpoints.matching.components import NO_PARTS, Parts
from hubmerge.checkpoints.matching.memory_names import models_inside, names_in_files
from hubmerge.checkpoints.matching.names import Renaming, Shapes, ambiguous_names, best_renamings, parameter_shapes
from hubmerge.checkpoints.matching.placement import Kinds, Placement
from hubmerge.checkpoints.matching.selection import ALL_TENSORS, Selection
from hubmerge.checkpoints.matching.spare import NO_SPARE, Spare
from hubmerge.errors import CheckpointError


def match(
    base: Checkpoint,
    checkpoint: Checkpoint,
    *,
    selection: Selection = ALL_TENSORS,
    ties: Mapping[str, str] | None = None,
    buffers: Buffers = NO_BUFFERS,
    spare: Spare = NO_SPARE,
    parts: Parts = NO_PARTS,
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
        spare: tensors in files that the class does not use: a checkpoint may lack them.
        parts: models inside of the base model: a checkpoint may be one of them alone.

    Raises:
        CheckpointError: a tensor is unknown to the base model, is missing inside a component that the checkpoint has,
            or has another shape; or `selection` covers no tensor of the base model.
    """
    found = find_alignment(base, checkpoint, selection=selection, ties=ties, buffers=buffers, spare=spare, parts=parts)
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
    spare: Spare = NO_SPARE,
    parts: Parts = NO_PARTS,
) -> Alignment | CheckpointError:
    """Return the result of `match`, or the error that it would raise, for callers that have another way.

    Raises:
        CheckpointError: `selection` covers no tensor of the base model.
    """
    selection.check(parameter_shapes(base.tensors), base.origin)
    kinds = Kinds(ties or {}, buffers, spare, parts)
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
    spare: Spare = NO_SPARE,
    parts: Parts = NO_PARTS,
) -> AlignedCheckpoint:
    """Match a checkpoint with the base model and return it under the base model's names.

    Args and errors are those of `match`.
    """
    return match(base, checkpoint, selection=selection, ties=ties, buffers=buffers, spare=spare, parts=parts).apply(
        checkpoint
    )


def _match_names(
    base: Checkpoint, checkpoint: Checkpoint, selection: Selection, kinds: Kinds
) -> Alignment | CheckpointError:
    """Match by names up to a prefix; return the error to raise if that is not possible."""
    shapes, parts = parameter_shapes(checkpoint.tensors), kinds.parts.models
    targets = parameter_shapes(base.tensors)
    tied = _with_tied_names(targets, kinds.ties)
    renamings = best_renamings(shapes, tied, parts)
    if 2 * sum(renamings[0].target(name, targets) is not None for name in shapes) < min(len(shapes), len(targets)):
        renamings = best_renamings(shapes, tied, parts, models_inside(checkpoint))
    if len(renamings) > 1:
        renamings = _chosen(renamings, checkpoint, targets, selection, parts)
    if len(renamings) > 1:
        return ambiguous_names(checkpoint.origin, renamings, hint=_choice(renamings, selection, parts))
    return Placement(base, checkpoint, selection, kinds, renamings[0]).result()


def _with_tied_names(targets: Shapes, ties: Mapping[str, str]) -> Shapes:
    """Return names and shapes of the base model's parameters, with tied names that its files do not have."""
    tied = {one: targets[other] for pair in ties.items() for one, other in (pair, pair[::-1]) if other in targets}
    return {**tied, **targets}


def _chosen(
    renamings: list[Renaming],
    checkpoint: Checkpoint,
    targets: Collection[str],
    selection: Selection,
    parts: Mapping[str, str],
) -> list[Renaming]:
    """Return those renamings that lead to tensors to be merged, and of these the one for the type of the checkpoint."""
    names = checkpoint.tensors
    found = [[one.target(name, targets) for name in names] for one in renamings]
    left = [
        one
        for one, places in zip(renamings, found, strict=True)
        if any(place is not None and selection.covers(place) for place in places)
    ]
    of_type = [one for one in left if parts.get(one.add) == checkpoint.config.get("model_type")]
    return of_type if len(of_type) == 1 else left or renamings


def _choice(renamings: Sequence[Renaming], selection: Selection, parts: Mapping[str, str]) -> str | None:
    """Return the hint that leaves one of several parts, None if the renamings are of another kind."""
    if not all(one.add in parts for one in renamings):
        return None
    others = [f"{one.add}.*" for one in renamings[1:]]
    return f"choose one of them by leaving out the others: {selection.excluding(others)}"


def _match_memory_names(
    base: Checkpoint, checkpoint: Checkpoint, selection: Selection, kinds: Kinds, names: Mapping[str, str]
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
