"""Plausibility of a config: the sizes that it sets, compared with the number of tensors.

transformers builds whatever a config says. Even without values, 2^40 layers take hours and all memory.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hubmerge.checkpoints.origin import Origin
from hubmerge.support.text import counted

_COUNT = re.compile(r"(?:^|_)(?<!per_)(?:layers?|blocks?|depths?|stages?|experts)$")
_LAYERS = re.compile(r"layers?$")
_EXPERTS = re.compile(r"experts$")
LABELS = "num_labels"

ALWAYS_ALLOWED = 100
"""Number of layers that build in no time. Configs of small models keep larger numbers than they have tensors."""

ALWAYS_ALLOWED_EXPERTS = 16_384
"""Number of experts that builds in no time, because most classes have all experts of a layer in one tensor."""

MOST_LABELS = 1_000_000
"""Highest number of labels: transformers generates a name for each."""


def check_config(config: Mapping[str, Any], names: Collection[str], place: Origin | str) -> None:
    """Refuse a config with more layers or experts than there are tensors, or with more than a million labels.

    Args:
        config: the content of config.json.
        names: the names of the model's tensors.
        place: the model's place, or its name in messages.

    Raises:
        CheckpointError: a size in the config is not plausible.
    """
    problem = implausible_size(config, names)
    if problem is not None:
        hint = "restore the config.json that was saved with the weights"
        raise Origin.of(place).in_file("config.json").error(problem, hint=hint)


def implausible_size(config: Mapping[str, Any], names: Collection[str]) -> str | None:
    """Return what is implausible about the sizes in a config, in words; None if nothing is.

    >>> implausible_size({"num_hidden_layers": 5000}, ["embed.weight", "head.weight"])
    'num_hidden_layers = 5000, but the model has 2 tensors'
    """
    for key, size in _sizes(config):
        if size > _most(key, len(names)):
            return f"{key} = {size}, but the model has {counted(len(names), 'tensor')}"
    return None


def _most(key: str, tensors: int) -> int:
    if key == LABELS:
        return MOST_LABELS
    return max(tensors, ALWAYS_ALLOWED_EXPERTS if _EXPERTS.search(key) else ALWAYS_ALLOWED)


def _sizes(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif isinstance(key, str) and (key == LABELS or _COUNT.search(key)):
            sizes = [size for size in (value if isinstance(value, list) else [value]) if isinstance(size, int)]
            # A list under `depths` has the layers of each stage; one under `moe_layers` has the numbers of layers.
            yield key, max([len(sizes), *sizes]) if _LAYERS.search(key) else sum(sizes)
