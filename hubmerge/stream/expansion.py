"""Expansion of a recipe into a stream: repos found by its queries, and new commits of checkpoints already merged.

Merged entries never change their position. The entries still to be merged follow: first those of an earlier lock, in
its order, then new ones in the order of the recipe. The repos of a query are ordered by their time of creation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hubmerge.stream.new_commits import Look, insert_new_commits, is_added, new_commits, numbered_name
from merge_recipes import LockedModel, ModelCollection, ModelQuery, ModelReference, Recipe, StreamEntry

MAX_NAME_CHARACTERS = 96

Find = Callable[[ModelQuery | ModelCollection], Iterable[str]]
"""Function that returns the repos of a query in merge order."""


@dataclass(frozen=True)
class Expansion:
    """Stream in merge order.

    Attributes:
        entries: Entries in merge order.
        pinned: Entries whose commits are known already, by name.
    """

    entries: tuple[StreamEntry, ...]
    pinned: dict[str, LockedModel]


def expand(recipe: Recipe, locked: Sequence[LockedModel], merged: int, find: Find, look: Look | None) -> Expansion:
    """Return the stream of a recipe.

    Args:
        recipe: The recipe.
        locked: Models of earlier locks, in merge order.
        merged: Number of them that are merged already.
        find: Search for the repos of a query.
        look: Search for new commits of merged entries (`on_update: append` or `replace`), None to search for none.
    """
    written = _written_entries(recipe, locked, merged, find)
    entries = insert_new_commits(recipe, written, locked[:merged])
    pinned = {}
    by_name = {model.name: model for model in locked}
    for entry in entries:
        known = by_name.get(entry.name)
        if entry.model.stage is None and known is not None and str(known.reference) == str(entry.model):
            pinned[entry.name] = known.model_copy(update={"reference": entry.model})
    if look is not None:
        for entry, newest in new_commits(recipe, entries, locked[:merged], look):
            entries.append(entry)
            pinned[entry.name] = newest
    return Expansion(tuple(entries), pinned)


def _written_entries(recipe: Recipe, locked: Sequence[LockedModel], merged: int, find: Find) -> list[StreamEntry]:
    """Return the entries of the recipe and of its queries, each once, in merge order."""
    if not recipe.has_queries:
        return list(recipe.stream())
    found = _found_entries(recipe, locked, find)
    by_name = {entry.name: entry for entry in found}
    kept = []
    for index, model in enumerate(locked):
        entry = by_name.get(model.name)
        if entry is None and index < merged and not is_added(model, locked[:index]):
            entry = StreamEntry(model=model.reference, name=model.name)
        if entry is not None and str(entry.model) == str(model.reference):
            kept.append(entry)
    names = {entry.name for entry in kept}
    return kept + [entry for entry in found if entry.name not in names]


def _found_entries(recipe: Recipe, locked: Sequence[LockedModel], find: Find) -> list[StreamEntry]:
    """Return the listed entries, and for each query a new entry per repo that has none."""
    taken = {entry.model.path for entry in recipe.entries if entry.revoke is None} | {recipe.base_model.path}
    if recipe.publish is not None:
        taken.add(recipe.publish.repo)
    names = {model.name for model in locked} | {entry.name for entry in recipe.entries}
    known_names = {
        model.reference.path: model.name
        for index, model in enumerate(locked)
        if not is_added(model, locked[:index]) and model.reference.revision is None
    }
    entries: list[StreamEntry] = []
    for item in recipe.models:
        if isinstance(item, StreamEntry):
            entries.append(item)
            continue
        for repo in find(item):
            if repo in taken:
                continue
            taken.add(repo)
            name = known_names.get(repo) or _free_name(repo, names)
            names.add(name)
            entries.append(StreamEntry(model=ModelReference(repo), name=name))
    return entries


def _free_name(repo: str, names: set[str]) -> str:
    """Return the name of a repo; if it is taken, prefix the owner, then append a number."""
    owner, _, name = repo.rpartition("/")
    choices = [name, f"{owner}-{name}"] if owner else [name]
    return next(
        (choice for choice in map(_as_name, choices) if choice not in names), numbered_name(_as_name(name), names)
    )


def _as_name(text: str) -> str:
    return re.sub(r"^[^A-Za-z0-9]+", "", text)[:MAX_NAME_CHARACTERS] or "model"
