"""Comparison of two models tensor by tensor, with a piece of each tensor in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from hubmerge.checkpoints import Checkpoint, TensorInfo
from hubmerge.checkpoints.matching.memory_names import models_inside, names_in_files
from hubmerge.checkpoints.matching.names import Renaming, best_renamings, parameter_shapes
from hubmerge.inspection.differences import Diff, Measures, ReshapedTensor, TensorDiff
from hubmerge.inspection.places import ModelPlace, places_to_compare
from hubmerge.linalg import cosine, cosine_of_parts, difference, frobenius_norm, total_norm
from hubmerge.support import interrupts
from hubmerge.support.progress import Progress

ELEMENTS = 1 << 20
"""Number of values of a tensor that are compared at a time."""

_LAYER = re.compile(r"(.*?\.\d+)\.")
_OUTSIDE = "outside the layers"


def diff_models(one: str, other: str, progress: Progress) -> Diff:
    """Compare two models, or two states in folders.

    Tensors of files with equal digests are equal, and are not read. If that holds for all, nothing is downloaded.

    Args:
        one: the first model: a folder, or `owner/name@revision`, perhaps with `+adapter`.
        other: the second model.
        progress: the receiver of stages.

    Raises:
        HubError: a repo or a revision is missing.
        CheckpointError: the files are not a model.
        UsageError: one is a state and the other is a model.
    """
    first, second = places_to_compare(one, other)
    with first.open(weights=False) as ours, second.open(weights=False) as theirs:
        names, renaming = match_names(ours, theirs)
        infos = {name: (ours.tensors[name], theirs.tensors[told]) for name, told in names.items()}
        alone = [name for name in ours.tensors if name not in names]
        matched = set(names.values())
        others = [name for name in theirs.tensors if name not in matched]
    reshaped = {name: pair for name, pair in infos.items() if pair[0].shape != pair[1].shape}
    same = _SameFiles(first, second)
    equal = {name for name, pair in infos.items() if name not in reshaped and same.hold(*pair)}
    needed = {name: pair for name, pair in infos.items() if name not in equal and name not in reshaped}
    found = _read_and_compare(first, second, needed, progress) if needed else []
    whole = Measures.joined([one.measures for one in found])
    return Diff(
        one=first.label,
        other=second.label,
        renaming="" if renaming is None else str(renaming),
        tensors=tuple(sorted(found, key=TensorDiff.order)),
        unread=len(equal),
        reshaped=tuple(ReshapedTensor(name, *(info.shape for info in pair)) for name, pair in sorted(reshaped.items())),
        only_in_one=tuple(sorted(alone)),
        only_in_other=tuple(sorted(others)),
        whole=whole,
    )


@dataclass
class _SameFiles:
    """Pairs of files that are equal by their digests, each pair compared once."""

    first: ModelPlace
    second: ModelPlace
    known: dict[tuple[str, str], bool] = field(default_factory=dict)

    def hold(self, one: TensorInfo, other: TensorInfo) -> bool:
        """Return True if two tensors have one name in files with equal digests."""
        if one.name != other.name:
            return False
        files = (one.file, other.file)
        if files not in self.known:
            self.known[files] = self.first.has_equal_file(one.file, self.second, other.file)
        return self.known[files]


def match_names(ours: Checkpoint, theirs: Checkpoint) -> tuple[dict[str, str], Renaming | None]:
    """Return the names of the first model's tensors, mapped to those of the second model, and the change of names.

    Names may differ by a prefix, or by the names that the model's class has in memory.
    """
    changed: Mapping[str, str] = {name: name for name in theirs.tensors}
    targets, names = parameter_shapes(ours.tensors), parameter_shapes(theirs.tensors)
    renaming = best_renamings(names, targets, inside=models_inside(theirs))[0]
    if 2 * sum(renaming.target(name, targets) is not None for name in names) < min(len(names), len(targets)):
        in_files = names_in_files(ours, theirs)
        if in_files is not None:
            changed, renaming = in_files, Renaming()
    found: dict[str, str] = {}
    for name, stored in changed.items():
        target = renaming.target(name, ours.tensors)
        if target is not None and target not in found:
            found[target] = stored
    return found, None if renaming == Renaming() else renaming


def _read_and_compare(
    first: ModelPlace,
    second: ModelPlace,
    needed: Mapping[str, tuple[TensorInfo, TensorInfo]],
    progress: Progress,
) -> list[TensorDiff]:
    found = []
    with (
        first.open(weights=True) as ours,
        second.open(weights=True) as theirs,
        progress.stage("compare the tensors", len(needed)) as advance,
    ):
        for name, (one, other) in needed.items():
            interrupts.check()
            measures = compare_values(ours.read_pieces(name, ELEMENTS), theirs.read_pieces(other.name, ELEMENTS))
            layer = _LAYER.match(name)
            dtypes = tuple(str(info.model_dtype or info.dtype).removeprefix("torch.") for info in (one, other))
            told = "" if other.name == name else other.name
            place = layer[1] if layer else _OUTSIDE
            found.append(TensorDiff(name, told, place, one.shape, dtypes[0], dtypes[1], measures))
            advance(1)
    return found


def compare_values(ours: Iterator[torch.Tensor], theirs: Iterator[torch.Tensor]) -> Measures:
    """Return how far two tensors of one shape are apart, from their values in pieces.

    Args:
        ours: pieces of the first tensor.
        theirs: pieces of the second one, of the same lengths.
    """
    norms: tuple[list[float], list[float], list[float]] = ([], [], [])
    cosines: list[float | None] = []
    largest, changed, elements, finite = 0.0, 0, 0, True
    for one, other in zip(ours, theirs, strict=True):
        pair = (one.to(torch.float64), other.to(torch.float64))
        apart = torch.where(pair[0].isnan() & pair[1].isnan(), 0.0, difference(pair[1], pair[0]))
        changed += int(torch.count_nonzero(apart))
        elements += apart.numel()
        # Values that are no numbers on both sides are equal, and no part of a norm.
        usable = [torch.where(value.isfinite(), value, 0.0) for value in (*pair, apart)]
        finite &= bool(apart.isfinite().all())
        lengths = [frobenius_norm(value) for value in usable]
        for length, known in zip(lengths, norms, strict=True):
            known.append(length)
        cosines.append(cosine(usable[0], usable[1], (lengths[0], lengths[1])))
        largest = max(largest, float(usable[2].abs().max()) if usable[2].numel() else 0.0)
    angle = cosine_of_parts(cosines, norms[0], norms[1])
    one_norm, other_norm, apart_norm = (total_norm(values) for values in norms)
    return Measures(one_norm, other_norm, apart_norm, angle, largest, changed, elements, finite=finite)
