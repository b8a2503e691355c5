"""A model whose layers are stacked: its layers, and its other tensors, under the names of the model that lends them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.spare import is_for_prediction
from hubmerge.checkpoints.planning.matrices import weight_matrices
from hubmerge.checkpoints.stacking.stacks import OTHER_SENSES, TOWERS, Stack
from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.errors import CheckpointError
from hubmerge.support.text import counted

_BEFORE = re.compile(
    r"emb(?:ed|\.|$)|(?:^|\.)(?:wte|wpe|conv1|pre_layrnorm|pre_layernorm|ln_pre|shared|rotary\w*)(?:\.|$)"
)
"""Part of the name of a tensor that comes before the layers."""

_OF_FIRST_LAYER = re.compile(r"relative_attention_bias")
"""Part of the name of a tensor that the first layer of a stack has for all of them."""

_HEAD = re.compile(r"(?:lm_head|score|classifier|embed_out|visual_projection|text_projection)\b")


@dataclass(frozen=True)
class LayerSource:
    """A model of the sources of slices.

    Attributes:
        number: its number.
        model: the model; only its headers are needed.
        stacks: its stacks of layers.
        lent: those of the model that lends the names.
    """

    number: int
    model: Checkpoint
    stacks: tuple[Stack, ...]
    lent: tuple[Stack, ...]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return self.stacks[0].layers

    @cached_property
    def further(self) -> tuple[str, ...]:
        """Names of the tensors that predict further tokens."""
        numbered = {
            name for table in self._tables for number in table if number >= self.layers for _, name in table[number]
        }
        return tuple(name for name in self.model.tensors if name in numbered or is_for_prediction(name, frozenset()))

    @cached_property
    def _tables(self) -> list[dict[int, list[tuple[str, str]]]]:
        """For each stack, the tensors of each layer: name inside of the layer, and name in the files."""
        tables: list[dict[int, list[tuple[str, str]]]] = [{} for _ in self.stacks]
        for name in self.model.tensors:
            for table, stack in zip(tables, self.stacks, strict=True):
                layer = stack.layer(name)
                if layer is not None:
                    table.setdefault(layer, []).append((stack.suffix(name), name))
        return tables

    def outside(self, *, further: bool) -> Iterator[tuple[str, str]]:
        """Yield the tensors outside the layers: name in the stacked model, and name in the files.

        Args:
            further: True for the modules that predict further tokens as well.
        """
        for name in self.model.tensors:
            inside = any(stack.layer(name) is not None for stack in self.stacks)
            if not inside and (further or not is_for_prediction(name, frozenset())):
                yield self._renamed(name), name
        for lent, table in zip(self.lent, self._tables, strict=True):
            for suffix, name in table.get(0, ()):
                if _OF_FIRST_LAYER.search(suffix):
                    yield lent.name(0, suffix), name

    def layer(self, number: int, target: int) -> Iterator[tuple[str, str]]:
        """Yield the tensors of a layer under their names in layer `target` of the stacked model: new name, old name."""
        for lent, table in zip(self.lent, self._tables, strict=True):
            for suffix, name in table.get(number, ()):
                if not _OF_FIRST_LAYER.search(suffix):
                    yield lent.name(target, suffix), name

    def further_layers(self, target: int) -> Iterator[tuple[str, str]]:
        """Yield the tensors of the layers that predict further tokens, which follow layer `target`."""
        last = max((number for table in self._tables for number in table), default=-1)
        for number in range(self.layers, last + 1):
            yield from self.layer(number, target + number - self.layers)

    def tied_heads(self, missing: set[str]) -> Iterator[tuple[str, str]]:
        """Yield heads that only the stacked model has, because this one ties them: name, and name of the embeddings."""
        heads = [name for name in missing if _HEAD.match(name)]
        if heads:
            ties = weight_matrices(self.model.config, self.model.tensors).ties
            yield from ((name, ties[name]) for name in heads if ties.get(name) in self.model.tensors)

    def _renamed(self, name: str) -> str:
        own, lent = self.stacks[0].prefix, self.lent[0].prefix
        if own != lent and lent.endswith(own):
            return name if _HEAD.match(name) else lent[: -len(own)] + name
        if own != lent and own.endswith(lent):
            return name.removeprefix(own[: -len(lent)])
        return name


def check_stacks(source: LayerSource) -> None:
    """Check that a model has as many stacks of layers as the one that lends the names.

    Raises:
        CheckpointError: it has others.
    """
    if len(source.stacks) != len(source.lent):
        own = counted(len(source.stacks), "stack")
        raise source.model.origin.error(
            f"it has {own} of layers, expected {len(source.lent)} as in the base model",
            hint="stack models of one class",
        )


def is_before(name: str, stacks: Sequence[Stack]) -> bool:
    """Return True if a tensor outside the stacks comes before the layers: embeddings, and all other towers."""
    if _OF_FIRST_LAYER.search(name) or _BEFORE.search(name):
        return True
    tower = stacks[0].prefix.partition(".")[0]
    if tower in TOWERS:
        return not name.startswith((f"{tower}.", TOWERS[tower]))
    cuts_sense = any(OTHER_SENSES.search(stack.prefix) for stack in stacks)
    return OTHER_SENSES.search(name) is not None and not cuts_sense


def check_shapes(base: Checkpoint, lent: Sequence[Stack], sources: Mapping[int, LayerSource]) -> None:
    """Check that the tensors of all layers have shapes that the layers of the base model have.

    Raises:
        CheckpointError: a tensor has another shape.
    """
    known = [_shapes(base, stack) for stack in lent]
    for source in sources.values():
        for index, stack in enumerate(source.stacks):
            for suffix, found in _shapes(source.model, stack).items():
                expected = known[index].get(suffix, found)
                if not set(found) <= set(expected):
                    shape = next(one for one in found if one not in expected)
                    raise _other_shape(source.model, found[shape], shape, base, next(iter(expected)))


def _shapes(model: Checkpoint, stack: Stack) -> dict[str, dict[tuple[int, ...], str]]:
    """Return the shapes of each tensor of a layer, over all layers, with the name of the first that has it."""
    found: dict[str, dict[tuple[int, ...], str]] = {}
    for name, info in model.tensors.items():
        layer = stack.layer(name)
        if layer is not None and layer < stack.layers:
            found.setdefault(stack.suffix(name), {}).setdefault(info.shape, name)
    return found


def _other_shape(
    model: Checkpoint, name: str, shape: tuple[int, ...], base: Checkpoint, expected: tuple[int, ...]
) -> CheckpointError:
    return model.origin.error(
        f"its layers have another width: {name!r} is {describe_shape(shape)}, expected {describe_shape(expected)} "
        f"as in {base.label}",
        hint="stack layers of models with one width",
        tensor=name,
    )
