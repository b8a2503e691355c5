"""Matching names that differ by a prefix: one architecture is stored under several layouts.

A vision tower is `vision_model.encoder...` inside the whole model and in files of transformers 4, and
`encoder...` in files of transformers 5; a wrapped model carries `module.` in front of everything. Whichever
prefix, taken off or put in front, makes the most names and shapes agree is the one meant; if two do equally
well, nobody can know.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

# Files older than the present names of the parameters of a layer norm are still in use.
_OTHER_SPELLING = {".gamma": ".weight", ".weight": ".gamma", ".beta": ".bias", ".bias": ".beta"}

_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "masked_bias", "num_batches_tracked")


@dataclass(frozen=True)
class Renaming:
    """How names are brought to those of another file: a prefix taken off, or one put in front, or neither."""

    strip: str = ""
    add: str = ""

    def candidates(self, name: str) -> Iterator[str]:
        """What `name` may be called on the other side, the likeliest first."""
        if self.strip and name.startswith(f"{self.strip}."):
            yield from _spellings(name[len(self.strip) + 1 :])
        if self.add:
            yield from _spellings(f"{self.add}.{name}")
        yield from _spellings(name)

    def target(self, name: str, targets: Collection[str]) -> str | None:
        """The one of `targets` that `name` stands for, if there is one."""
        return next((candidate for candidate in self.candidates(name) if candidate in targets), None)

    def __str__(self) -> str:
        if self.strip:
            return f"`{self.strip}.` taken off the names"
        return f"`{self.add}.` put in front of the names" if self.add else "names as they are"


def match_names(names: Shapes, targets: Shapes, label: str) -> Renaming:
    """Return the renaming under which most of `names` are found, with equal shapes, among `targets`.

    Names without a target are left to the caller.

    Args:
        names: names and shapes of the checkpoint's parameters.
        targets: names and shapes of the base model's parameters.
        label: the checkpoint's name in messages.

    Raises:
        CheckpointError: two renamings with different results do equally well.
    """
    best = best_renamings(names, targets)
    if len(best) > 1:
        raise ambiguous_names(label, best)
    return best[0]


def best_renamings(names: Shapes, targets: Shapes) -> list[Renaming]:
    """Return the renamings under which most of `names` are found, with equal shapes, among `targets`.

    There are more than one only if they lead to different results. Names that need no renaming are preferred.
    """
    unchanged = Renaming()
    best_score, best = _score(unchanged, names, targets), [unchanged]
    if best_score[0] == len(names):
        return best
    for renaming in _renamings(names, targets):
        score = _score(renaming, names, targets)
        if score > best_score:
            best_score, best = score, [renaming]
        elif score == best_score and best[0] != unchanged:
            best.append(renaming)
    results = {tuple(renaming.target(name, targets) for name in names): renaming for renaming in best}
    return list(results.values()) if len(results) > 1 else best[:1]


def ambiguous_names(label: str, renamings: Sequence[Renaming]) -> CheckpointError:
    """Return the error for a checkpoint whose names match the base model's in several ways."""
    ways = " or ".join(str(renaming) for renaming in renamings)
    return CheckpointError(
        f"{label}: its tensors match the base model in more than one way: {ways}",
        hint="save the checkpoint as a whole model with save_pretrained(), so that its names are complete",
    )


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name most like `name`, if any is alike."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def buffer_reason(info: TensorInfo) -> str | None:
    """Why a tensor is no parameter, in words; None if it is one.

    Buffers are computed from the configuration, so that files differ in whether they hold them.
    """
    last = info.name.rpartition(".")[2]
    if last in _BUFFERS:
        return f"{last} is a buffer, not a parameter"
    if not info.dtype.is_floating_point:
        return "whole numbers and truth values are not merged"
    if info.name.endswith(".attn.bias") and len(info.shape) == 4:
        return "a causal mask is a buffer, not a parameter"
    return None


def parameter_shapes(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that are parameters."""
    return {name: info.shape for name, info in tensors.items() if buffer_reason(info) is None}


def _renamings(names: Shapes, targets: Shapes) -> Iterator[Renaming]:
    for prefix in _prefixes(names):
        yield Renaming(strip=prefix)
    for prefix in _prefixes(targets):
        yield Renaming(add=prefix)


def _prefixes(names: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(1, min(3, len(parts))):
            found[".".join(parts[:depth])] = None
    return list(found)


def _score(renaming: Renaming, names: Shapes, targets: Shapes) -> tuple[int, int]:
    found = [(shape, renaming.target(name, targets)) for name, shape in names.items()]
    by_name = [(shape, target) for shape, target in found if target is not None]
    return sum(targets[target] == shape for shape, target in by_name), len(by_name)


def _spellings(name: str) -> Iterator[str]:
    yield name
    for ending, other in _OTHER_SPELLING.items():
        if name.endswith(ending):
            yield name[: -len(ending)] + other
