"""SHA-256 digests of a recipe's content and of the inputs of each step."""

from __future__ import annotations

from typing import Any

from merge_recipes.canonical import content_digest
from merge_recipes.lock import Lock, LockedModel
from merge_recipes.schema import Recipe

CHAIN_FORMAT = 1


def recipe_digest(recipe: Recipe) -> str:
    """Return the digest of a recipe's content; comments, the order of keys and written defaults do not change it."""
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    if recipe.stages:
        content["stages"] = {name: recipe_digest(stage) for name, stage in recipe.stages.items()}
    return content_digest(content if recipe.names_base else {**content, "base_model": None})


def _identity(model: LockedModel) -> list[str | None]:
    """Return the commits of a model and its adapter, followed by their subfolders if there are any."""
    reference = model.reference
    folders = [reference.subfolder, reference.adapter.subfolder if reference.adapter is not None else None]
    return [model.commit, model.adapter_commit, *(folders if any(folders) else [])]


def chain_digests(recipe: Recipe, lock: Lock) -> tuple[str, ...]:
    """Return digests that identify the merged weights of step 0 (the base model), 1, 2, ... by their inputs.

    Digest 0 covers the base model's commit, the method, its top-level parameters, dtypes and tensor rules, and the
    choice of the read-out with its task, if there is one. Digest t
    covers digest t-1, the commits of entry t, its parameters, and whether it is taken out. Later entries, tasks and
    the target change no digest, so a stream that is extended keeps its digests.

    Args:
        recipe: a recipe whose stream has the models of the lock, in this order.
        lock: the lock of the recipe.

    Returns:
        One digest per step, beginning with step 0.
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
            **({"state_dtype": recipe.state_dtype} if recipe.state_dtype != "float64" else {}),
            **_reading(recipe),
        }
    )
    digests = [digest]
    for entry, locked in zip(recipe.stream(), lock.models, strict=True):
        inputs = {
            "previous": digests[-1],
            "model": _identity(locked),
            "parameters": entry.parameters,
            **({"revoke": True} if entry.revoke is not None else {}),
        }
        digests.append(content_digest(inputs))
    return tuple(digests)


def _reading(recipe: Recipe) -> dict[str, Any]:
    """Return what the choice of the read-out depends on; nothing if the recipe leaves no choice."""
    if recipe.read is None:
        return {}
    task = next((task for task in recipe.all_tasks if task.name == recipe.read.on), None)
    content = None if task is None else task.model_dump(mode="json", exclude_defaults=True)
    return {"read": recipe.read.model_dump(mode="json", exclude_defaults=True), "read_on": content}


def _tokenizer(recipe: Recipe, lock: Lock) -> dict[str, Any]:
    """Return what a recipe says about the tokenizer; nothing if the base model's files are copied."""
    found: dict[str, Any] = {}
    if recipe.tokenizer_options is not None:
        found["tokenizer"] = recipe.tokenizer_options.model_dump(mode="json", exclude_defaults=True)
    if lock.tokenizer is not None:
        found["tokenizer_model"] = _identity(lock.tokenizer)
    if recipe.chat_template is not None:
        found["chat_template"] = recipe.chat_template
    return found


def joint_digest(recipe: Recipe, lock: Lock) -> str:
    """Return the digest that identifies the merged weights of a recipe that merges all its models at once.

    Args:
        recipe: a recipe whose stream has the models of the lock, in this order.
        lock: the lock of the recipe.
    """
    return content_digest(
        {
            **({"slices": _slices(recipe, lock), "stack": recipe.stack} if recipe.slices else {}),
            **({"layers": recipe.first_layers} if recipe.first_layers is not None else {}),
            "format": CHAIN_FORMAT,
            "form": "joint",
            "base_model": _identity(lock.base_model),
            "names_base": recipe.names_base,
            "merge_method": recipe.merge_method,
            "parameters": recipe.parameters,
            "dtype": recipe.dtype,
            "out_dtype": recipe.out_dtype,
            "tensors": recipe.tensors.model_dump(mode="json"),
            "seed": recipe.seed or 0,
            **_tokenizer(recipe, lock),
            "models": [
                {"model": _identity(locked), "parameters": entry.parameters}
                for entry, locked in zip(recipe.stream(), lock.models, strict=True)
            ],
        }
    )


def _slices(recipe: Recipe, lock: Lock) -> list[dict[str, Any]]:
    """Return the slices of a recipe as plain values, with commits in place of references."""
    known = {str(entry.model): _identity(locked) for entry, locked in zip(recipe.stream(), lock.models, strict=True)}
    known.setdefault(str(recipe.base_model), _identity(lock.base_model))
    return [
        {
            "sources": [
                {"model": known[str(one.model)], "layers": list(one.layer_range), "parameters": one.parameters}
                for one in piece.sources
            ],
            "parameters": piece.parameters,
            "origin": piece.place_of(recipe.base_model) if recipe.names_base or piece.base_model else None,
        }
        for piece in recipe.slices
    ]
