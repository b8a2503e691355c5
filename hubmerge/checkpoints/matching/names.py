"""Matching of tensor names that differ by a prefix.

One architecture is stored under several layouts. A vision tower has names `vision_model.encoder...` in the whole model
and in files of transformers 4, `encoder...` in files of transformers 5; in a wrapped model every name begins with
`module.`. The prefix that makes most names and shapes agree, removed or added, is used; two that do equally well are
ambiguous.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]

# Old files that are still in use have other names for the parameters of a layer norm.
_OTHER_SPELLING = {".gamma": ".weight", ".weight": ".gamma", ".beta": ".bias", ".bias": ".beta"}

_BUFFERS = ("position_ids", "token_type_ids", "inv_freq", "original_inv_freq", "masked_bias", "num_batches_tracked")


@dataclass(frozen=True)
class Renaming:
    """Change that turns the names of one file into those of another: a prefix removed, added or replaced, or none."""

    strip: str = ""
    add: str = ""

    def candidates(self, name: str) -> Iterator[str]:
        """Yield the names that `name` may have in the other file, the likeliest first."""
        added = f"{self.add}." if self.add else ""
        if self.strip and name.startswith(f"{self.strip}."):
            yield from _spellings(f"{added}{name[len(self.strip) + 1 :]}")
        elif self.add and not self.strip:
            yield from _spellings(f"{added}{name}")
        yield from _spellings(name)

    def target(self, name: str, targets: Collection[str]) -> str | None:
        """Return the one of `targets` that `name` becomes, None if there is none."""
        return next((candidate for candidate in self.candidates(name) if candidate in targets), None)

    def __str__(self) -> str:
        if self.strip and self.add:
            return f"`{self.strip}.` replaced by `{self.add}.` in the names"
        if self.strip:
            return f"`{self.strip}.` removed from the names"
        return f"`{self.add}.` added to the names" if self.add else "names as they are"


def best_renamings(
    names: Shapes, targets: Shapes, parts: Iterable[str] = (), inside: Iterable[str] = ()
) -> list[Renaming]:
    """Return the renamings under which most of `names` are found, with equal shapes, among `targets`.

    Args:
        names: names and shapes of a checkpoint's parameters.
        targets: names and shapes of the base model's parameters.
        parts: prefixes of models inside of the base model, which may have prefixes of their own in a checkpoint.
        inside: prefixes of models inside of the checkpoint, of which the base model may be one.

    Returns:
        One renaming, or several that do equally well with different results. No renaming is preferred to any.
    """
    unchanged = Renaming()
    best_score, best = _score(unchanged, names, targets), [unchanged]
    if best_score[0] == len(names):
        return best
    for renaming in _renamings(names, targets, parts, inside):
        score = _score(renaming, names, targets)
        if score > best_score:
            best_score, best = score, [renaming]
        elif score == best_score and best[0] != unchanged:
            best.append(renaming)
    results = {tuple(renaming.target(name, targets) for name in names): renaming for renaming in best}
    return list(results.values()) if len(results) > 1 else best[:1]


def ambiguous_names(origin: Origin, renamings: Sequence[Renaming], *, hint: str | None = None) -> CheckpointError:
    """Return the error for a checkpoint whose names match the base model's in several ways."""
    ways = " or ".join(str(renaming) for renaming in renamings)
    return origin.error(
        f"its tensors match the base model in more than one way: {ways}",
        hint=hint or "save the checkpoint as a whole model with save_pretrained(), so that its names are complete",
    )


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar one of `names`, None if none is similar."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def buffer_reason(info: TensorInfo) -> str | None:
    """Return the reason why a tensor is not a parameter, in words; None if it is one.

    Buffers are computed from the config: some files of a model have them, others do not.
    """
    last = info.name.rpartition(".")[2]
    if last in _BUFFERS:
        return f"{last} is a buffer, not a parameter"
    if not info.dtype.is_floating_point:
        return "integers and booleans are not merged"
    if info.name.endswith(".attn.bias") and len(info.shape) == 4:
        return "a causal mask is a buffer, not a parameter"
    return None


def parameter_shapes(tensors: Mapping[str, TensorInfo]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors that are parameters."""
    return {name: info.shape for name, info in tensors.items() if buffer_reason(info) is None}


def _renamings(names: Shapes, targets: Shapes, parts: Iterable[str], inside: Iterable[str]) -> Iterator[Renaming]:
    own = _prefixes(names)
    for prefix in own:
        yield Renaming(strip=prefix)
    for prefix in dict.fromkeys([*_prefixes(targets), *parts]):
        yield Renaming(add=prefix)
    for part in parts:
        yield from (Renaming(strip=prefix, add=part) for prefix in own)
    for model in inside:
        yield from (Renaming(strip=model, add=prefix) for prefix in ["", *_prefixes(targets)])


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
