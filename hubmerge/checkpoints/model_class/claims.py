"""How much a config claims, against how many tensors there are: transformers builds what a config says."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hubmerge.errors import CheckpointError

_COUNT = re.compile(r"(?:^|_)(?:layers?|blocks?|depths?|stages?|experts)$")
LABELS = "num_labels"
ALWAYS_ALLOWED = 100
"""So many layers take no time to build; configs of small models keep larger numbers that nothing uses."""

MOST_LABELS = 1_000_000
"""transformers makes up a name for each."""


def check_config(config: Mapping[str, Any], names: Collection[str], label: str) -> None:
    """Refuse a config that claims more layers or experts than the `names` of its tensors allow, or labels without end.

    Building them, even without values, could take hours and all memory.

    Raises:
        CheckpointError: naming the key.
    """
    for key, depth in _counts(config):
        if depth > (MOST_LABELS if key == LABELS else max(len(names), ALWAYS_ALLOWED)):
            raise CheckpointError(
                f"{label}: config.json claims {key} = {depth} for {len(names)} tensors",
                hint="restore the config.json that belongs to the weights",
            )


def _counts(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _counts(value)
        elif isinstance(key, str) and (key == LABELS or _COUNT.search(key)):
            counts = value if isinstance(value, list) else [value]
            yield key, sum(count for count in counts if isinstance(count, int))
