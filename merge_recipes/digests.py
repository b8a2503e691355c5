"""SHA-256 digests of what a recipe says, and of what goes into each step."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from merge_recipes.schema import Recipe

if TYPE_CHECKING:
    from merge_recipes.locking import Lock, LockedModel

CHAIN_FORMAT = 1


def canonical_json(value: Any) -> str:
    """Return JSON in which equal contents are equal texts: sorted keys, no blanks, `1.0` and `1` the same."""
    return json.dumps(_plain_numbers(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def content_digest(value: Any) -> str:
    """Return `sha256:` and the digest of a value's canonical JSON."""
    return f"sha256:{hashlib.sha256(canonical_json(value).encode()).hexdigest()}"


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of a recipe's content: comments, the order of keys and defaults written out do not matter."""
    return content_digest(recipe.model_dump(mode="json", exclude_defaults=True))


def _identity(model: LockedModel) -> list[str | None]:
    """What says which weights are meant: the commits, and for a model or adapter in a subfolder also the folders."""
    reference = model.reference
    folders = [reference.subfolder, reference.adapter.subfolder if reference.adapter is not None else None]
    return [model.commit, model.adapter_commit, *(folders if any(folders) else [])]


def chain_digests(recipe: Recipe, lock: Lock) -> tuple[str, ...]:
    """Return digests that identify the merged weights of step 0 (the base model), 1, 2, ... by what went into them.

    Digest 0 covers the base model's commit, the method, its top-level parameters, dtypes and tensor rules; digest t
    covers digest t-1, the commits of entry t and its parameters. What comes later in the stream, what is evaluated and
    where it is published changes no digest, so a stream that grows keeps those it has.
    """
    digest = content_digest(
        {
            "format": CHAIN_FORMAT,
            "base_model": _identity(lock.base_model),
            "merge_method": recipe.merge_method,
            "parameters": recipe.parameters,
            "dtype": recipe.dtype,
            "out_dtype": recipe.out_dtype,
            "tensors": recipe.tensors.model_dump(mode="json"),
        }
    )
    digests = [digest]
    for entry, locked in zip(recipe.stream(), lock.models, strict=True):
        inputs = {
            "previous": digests[-1],
            "model": _identity(locked),
            "parameters": entry.parameters,
        }
        digests.append(content_digest(inputs))
    return tuple(digests)
