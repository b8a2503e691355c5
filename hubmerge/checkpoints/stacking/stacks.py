"""Stacks of layers in a model's files, and the keys of its config that count them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint
from hubmerge.checkpoints.matching.spare import is_for_prediction, prediction_layers
from hubmerge.errors import CheckpointError
from hubmerge.support.text import listed
from merge_recipes import layer_of

COUNT_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "depth",
)
"""Keys of configs with the number of layers."""

OTHER_SENSES = re.compile(r"vision|visual|image|audio|speech|qformer|resampler|merger|projector|perceiver|connector")
"""Part of the names of towers for other things than text, and of what connects them."""

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")
TOWERS = {"text_model": "text_projection", "vision_model": "visual_projection", "audio_model": "audio_projection"}
"""Towers of equal rank inside of a model, and the projection after each."""


@dataclass(frozen=True)
class Stack:
    """One stack of layers.

    Attributes:
        prefix: the start of the names in files, up to the number: `model.layers.`.
        layers: the number of layers, without those that predict further tokens.
        path: the keys of the nested config that describes it; empty for the config itself.
        keys: the keys there that have the number of layers.
    """

    prefix: str
    layers: int
    path: tuple[str, ...]
    keys: tuple[str, ...]

    def layer(self, name: str) -> int | None:
        """Return the number of the layer that a tensor belongs to, None if it is not in this stack."""
        found = layer_of(name)
        return found[1] if found is not None and found[0] == self.prefix else None

    def suffix(self, name: str) -> str:
        """Return the name of a tensor inside of its layer."""
        return name[len(self.prefix) :].partition(".")[2]

    def name(self, layer: int, suffix: str) -> str:
        """Return the name of a tensor of a layer."""
        return f"{self.prefix}{layer}.{suffix}"


def find_stacks(model: Checkpoint, wanted: str | None = None) -> tuple[Stack, ...]:
    """Return the stack of layers that slices cut: two for an encoder with a decoder, else one.

    Args:
        model: the model.
        wanted: the start of the names in the stack; None for the layers of the language model.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    lengths = _lengths(model)
    names = sorted(_wanted(model, lengths, wanted) if wanted is not None else _of_language(lengths))
    both = bool(model.config.get("is_encoder_decoder")) and {_role(name) for name in names} == _BOTH
    if len(names) > 1 and wanted is None and not both:
        names = _matching(model, lengths, names)
    if not names:
        raise model.origin.error("no layers found to stack", hint="name their start with `stack:` in the recipe")
    if len(names) > 2 or (len(names) == 2 and {_role(name) for name in names} != _BOTH):
        raise _several(model, names)
    stacks = tuple(_stack(model.config, prefix, lengths[prefix]) for prefix in names)
    if len({stack.layers for stack in stacks}) > 1:
        raise _several(model, names)
    return stacks


_BOTH = {"encoder", "decoder"}


def _role(prefix: str) -> str:
    """Return "decoder" or "encoder" for a stack of one of them, else the prefix."""
    return next((role for role in ("decoder", "encoder") if role in prefix.split(".")), prefix)


def _lengths(model: Checkpoint) -> dict[str, int]:
    """Return the number of layers of each stack, without the stacks that predict further tokens."""
    found: dict[str, int] = {}
    for name in model.tensors:
        place = layer_of(name)
        if place is not None and not is_for_prediction(name, frozenset()):
            found[place[0]] = max(place[1] + 1, found.get(place[0], 0))
    return found


def _wanted(model: Checkpoint, lengths: Mapping[str, int], wanted: str) -> list[str]:
    found = [prefix for prefix in lengths if f"{prefix}.".startswith(f"{wanted.strip('.')}.")]
    if not found and len(lengths) == 1:
        return list(lengths)  # the tower alone, whose names have no prefix
    if not found:
        raise model.origin.error(
            f"`stack: {wanted}` of the recipe is the start of no layers, expected that of {listed(sorted(lengths))}",
            hint=f"write `stack: {min(lengths, default=wanted).rstrip('.')}`",
        )
    return found


def _of_language(lengths: Mapping[str, int]) -> list[str]:
    if len(TOWERS.keys() & {prefix.partition(".")[0] for prefix in lengths}) > 1:
        return list(lengths)  # towers of equal rank, such as those of CLIP
    text = [prefix for prefix in lengths if not OTHER_SENSES.search(prefix)]
    return text or list(lengths)


def _matching(model: Checkpoint, lengths: Mapping[str, int], names: Sequence[str]) -> list[str]:
    """Return the stacks whose number of layers the config has, if these are fewer."""
    counts = {value for path, _, value in _counts(model.config) if not path or path[0] in _TEXT_CONFIGS}
    found = [name for name in names if lengths[name] in counts]
    longest = [name for name in found if lengths[name] > 1]
    return longest or found or list(names)


def _several(model: Checkpoint, names: Sequence[str]) -> CheckpointError:
    starts = [name.rstrip(".") for name in names]
    return model.origin.error(
        f"there are several stacks of layers: {listed(starts)}; slices cut one of them",
        hint=f"choose one in the recipe: `stack: {starts[0]}`",
    )


def _stack(config: Mapping[str, Any], prefix: str, length: int) -> Stack:
    further = prediction_layers(config)
    counts = [
        (path, key, value)
        for path, key, value in _counts(config)
        if value == length or (value < length and set(range(value, length)) <= further)
    ]
    role = _role(prefix)
    if role in _BOTH:
        of_role = [one for one in counts if ("decoder" in one[1]) == (role == "decoder")]
        own = [one for one in of_role if role in one[1]]
        counts = (own + [one for one in of_role if one not in own]) or counts
    senses = OTHER_SENSES.search(prefix) is not None
    counts.sort(key=lambda one: (_is_other(one[0]) != senses, one[0][:1] not in [(name,) for name in _TEXT_CONFIGS]))
    if not counts:
        return Stack(prefix, length, (), ())
    path, _, value = counts[0]
    return Stack(prefix, value, path, tuple(key for place, key, one in counts if (place, one) == (path, value)))


def _is_other(path: tuple[str, ...]) -> bool:
    return any(OTHER_SENSES.search(part) for part in path)


def _counts(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, int]]:
    """Yield the numbers of layers in a config and the configs in it: place, key and number."""
    for key in COUNT_KEYS:
        if type(config.get(key)) is int:
            yield path, key, config[key]
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _counts(value, (*path, key))
