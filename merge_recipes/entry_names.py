"""Names of entries in mergekit's recipes, in which models have no names.

The default name of an entry is the last part of its model's path. Two owners may have a model of one name, and a model
may be listed with several adapters; such entries get longer names, so that a recipe of mergekit needs no `name`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from merge_recipes.references import ModelReference, checkpoint_key
from merge_recipes.schema_types import MAX_NAME_CHARACTERS, NAME_PATTERN

_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")


def named_entries(models: list[Any]) -> list[Any]:
    """Return the items of `models`; entries whose default name is taken or not a valid name have a `name`."""
    references = [_reference(item) for item in models]
    taken = {item["name"] for item in models if isinstance(item, dict) and isinstance(item.get("name"), str)}
    seen: dict[tuple[str, ...], None] = {}
    found: list[Any] = []
    for item, reference in zip(models, references, strict=True):
        if reference is None or checkpoint_key(reference) in seen:
            found.append(item)
            continue
        seen[checkpoint_key(reference)] = None
        name = next(name for name in _names(reference) if name not in taken)
        taken.add(name)
        found.append(item if name == reference.short_name else {**item, "name": name})
    return found


def _reference(item: Any) -> ModelReference | None:
    """Return the model of an entry that has no name of its own."""
    if not isinstance(item, dict) or "name" in item or not isinstance(item.get("model"), str):
        return None
    parsed = ModelReference.try_parse(item["model"])
    return parsed if isinstance(parsed, ModelReference) else None


def _names(reference: ModelReference) -> Iterator[str]:
    """Yield names for a model, the shortest first."""
    short = valid_name(reference.short_name)
    yield short
    if reference.adapter is not None:
        yield valid_name(f"{short}-{reference.adapter.short_name}")
    if not reference.is_local and "/" in reference.path:
        yield valid_name(f"{reference.path.partition('/')[0]}-{short}")
    number = 2
    while True:
        yield f"{short[: MAX_NAME_CHARACTERS - 6]}-{number}"
        number += 1


def valid_name(text: str) -> str:
    """Return a text as a name: other characters become dashes.

    >>> valid_name("my model (final)")
    'my-model-final'
    """
    if re.fullmatch(NAME_PATTERN, text) is not None and len(text) <= MAX_NAME_CHARACTERS:
        return text
    return _OTHER_CHARACTERS.sub("-", text).strip("-._")[:MAX_NAME_CHARACTERS] or "model"
