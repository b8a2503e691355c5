"""SHA-256 digests of what a recipe says, and of what goes into each step."""

from __future__ import annotations

from merge_recipes.canonical import content_digest
from merge_recipes.lock import Lock, LockedModel
from merge_recipes.schema import Recipe

CHAIN_FORMAT = 1


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
