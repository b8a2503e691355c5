"""Recipes that take entries out of a merge, and the check that the method can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import HubError, UsageError
from hubmerge.methods import METHODS, Method, method_of
from hubmerge.stream.expansion import expand
from hubmerge.stream.new_commits import MAX_NAME_CHARACTERS, original_of, revoked_name
from merge_recipes import LoadedRecipe, Lock, LockedModel, RecipeError, StreamEntry
from merge_recipes.errors import KeyPath, did_you_mean
from merge_recipes.schema import REVOKED


def check_revocable(loaded: LoadedRecipe) -> None:
    """Check that the method has the state that a recipe asks for, and can take out what it revokes or replaces.

    Raises:
        RecipeError: It cannot.
    """
    places: list[KeyPath] = [
        ("models", index, "revoke")
        for index, item in enumerate(loaded.recipe.models)
        if isinstance(item, StreamEntry) and item.revoke
    ]
    if loaded.recipe.state_dtype != "float64" and not isinstance(method_of(loaded.recipe), Method):
        message = f"{loaded.recipe.merge_method} merges all models at once, without a state"
        raise RecipeError(loaded.document.problem(("state_dtype",), message, "remove `state_dtype`", at_key=True))
    replaces = loaded.recipe.on_update == "replace"
    method = method_of(loaded.recipe)
    if not (places or replaces) or (isinstance(method, Method) and method.revokes):
        return
    name = loaded.recipe.merge_method
    able = ", ".join(one.name for one in METHODS if one.revokes)
    if isinstance(method, Method):
        message = _dependent(name)
        hint, instead = f"remove the entry from the recipe and run with --replay, or use one of {able}", f"use {able}"
    else:
        message = f"{name} merges all models at once, without a state from which an entry could be taken out"
        hint, instead = "remove this line and the entry that it names, and run with --replay", ""
    problems = [loaded.document.problem(place, message, hint) for place in places]
    if replaces:
        hint = "write `on_update: replay`, which merges the stream again" + (f", or {instead}" if instead else "")
        problems.append(loaded.document.problem(("on_update",), message, hint))
    raise RecipeError(problems)


def _dependent(method: str) -> str:
    """Return why a method cannot take entries out."""
    return (
        f"{method} cannot take an entry out again: what it added depends on the checkpoints merged before, and later "
        "ones depend on it"
    )


def _check_published(published: LoadedRecipe, repo: str) -> None:
    """Check that the method of a published stream can take entries out."""
    method, name = method_of(published.recipe), published.recipe.merge_method
    replay = "remove the entry from your copy of the recipe, and run it with --replay"
    if not isinstance(method, Method):
        message = f"{name} merges all models at once, without a state from which an entry could be taken out"
        raise UsageError(f"{repo}: {message}", hint=replay)
    if not method.revokes:
        hint = f"{replay}, or merge with one of {', '.join(one.name for one in METHODS if one.revokes)}"
        raise UsageError(f"{repo}: {_dependent(name)}", hint=hint)


@dataclass(frozen=True)
class Revocation:
    """A published recipe with steps added that take entries out of the merge.

    Attributes:
        keys: The keys of the recipe.
        newer: The names of newer commits that are taken out with the entries that were named.
    """

    keys: dict[str, Any]
    newer: tuple[str, ...]


def revoking_recipe(
    published: LoadedRecipe, lock: Lock, names: Sequence[str], repo: str, *, only: bool = False
) -> Revocation:
    """Return a published recipe with steps added that take entries out of the merge.

    A run with `on_update: append` or `replace` may have merged newer commits of an entry, as NAME-2. They are taken
    out too.

    Args:
        published: The recipe.
        lock: Its lock, which has the entries that queries found.
        names: Names of the entries to take out.
        repo: The repo, for messages.
        only: Take out the named entries alone.

    Raises:
        HubError: The stream has no such entry.
        UsageError: The entry is taken out already, no entry would be left, or the method cannot take entries out.
    """
    _check_published(published, repo)
    merged = {model.name: model for model in lock.models}
    entries = expand(published.recipe, lock.models, len(lock.models), lambda _: (), None).entries
    steps = {entry.name for entry in entries if entry.revoke is not None}
    revoked = {entry.revoke for entry in entries}
    listed, out, newer = {entry.name for entry in published.recipe.entries}, list[str](), list[str]()
    left = [one for one in merged if one not in steps | revoked]
    for name in dict.fromkeys(names):
        if name not in merged or name in steps:
            raise _unknown(name, left, repo)
        later = [] if only else [one for one in _newer(lock, name) if one not in listed | revoked | {*names}]
        if name in revoked and not later:
            message = f'{repo}: no earlier entry "{name}" is merged: it is taken out already'
            raise UsageError(message, hint=f"its entries: {', '.join(left)}")
        # An entry whose newer commit took its place is out already.
        out += ([] if name in revoked and later else [name]) + later
        newer += later
    if {*left} <= {*out}:
        raise UsageError(f"{repo}: no entry would be left", hint="merge another model first, or delete the repo")
    keys: dict[str, Any] = published.document.data
    return Revocation({**keys, "models": [*keys["models"], *(_item(merged[name]) for name in out)]}, tuple(newer))


def _unknown(name: str, known: Sequence[str], repo: str) -> HubError:
    message = f"{repo} has no entry {name!r}{did_you_mean(name, known)}"
    return HubError(message, hint=f"its entries: {', '.join(known)}", repo=repo)


def _newer(lock: Lock, name: str) -> list[str]:
    """Return the names of the later commits of an entry."""
    return [
        model.name
        for index, model in enumerate(lock.models)
        if (origin := original_of(model, lock.models[:index])) is not None and origin.name == name
    ]


def _item(model: LockedModel) -> dict[str, str]:
    long = len(model.name + REVOKED) > MAX_NAME_CHARACTERS
    return {"model": str(model.reference), "revoke": model.name} | ({"name": revoked_name(model.name)} if long else {})
