"""Recipes that take entries out of a merge, and the check that the method can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hubmerge.errors import HubError
from hubmerge.methods import METHODS, Method, method_of
from merge_recipes import LoadedRecipe, Lock, RecipeError, StreamEntry
from merge_recipes.errors import did_you_mean


def check_revocable(loaded: LoadedRecipe) -> None:
    """Check that the method can take out the entries that a recipe revokes.

    Raises:
        RecipeError: It cannot.
    """
    places = [index for index, item in enumerate(loaded.recipe.models) if isinstance(item, StreamEntry) and item.revoke]
    method = method_of(loaded.recipe)
    if not places or (isinstance(method, Method) and method.revokes):
        return
    name = loaded.recipe.merge_method
    able = ", ".join(one.name for one in METHODS if one.revokes)
    if isinstance(method, Method):
        message = (
            f"{name} cannot take an entry out again: what it added depends on the checkpoints merged before, and later "
            "ones depend on it"
        )
        hint = f"remove the entry from the recipe and run with --replay, or use one of {able}"
    else:
        message = f"{name} merges all models at once, without a state from which an entry could be taken out"
        hint = "remove this line and the entry that it names, and run with --replay"
    raise RecipeError([loaded.document.problem(("models", index, "revoke"), message, hint) for index in places])


def revoking_recipe(published: LoadedRecipe, lock: Lock, names: Sequence[str], repo: str) -> dict[str, Any]:
    """Return the keys of a published recipe with steps added that take entries out of the merge.

    Args:
        published: The recipe.
        lock: Its lock, which has the entries that queries found.
        names: Names of the entries to take out.
        repo: The repo, for messages.

    Raises:
        HubError: The stream has no such entry.
    """
    merged = {model.name: model for model in lock.models}
    added = []
    for name in names:
        if name not in merged:
            raise HubError(
                f"{repo} has no entry {name!r}{did_you_mean(name, list(merged))}",
                hint=f"its entries: {', '.join(merged)}",
                repo=repo,
            )
        added.append({"model": str(merged[name].reference), "revoke": name})
    keys: dict[str, Any] = published.document.data
    return {**keys, "models": [*keys["models"], *added]}
