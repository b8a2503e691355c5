"""Expansion of a recipe into a stream: repos found by its queries, and new commits of checkpoints already merged.

Merged entries never change their position. The entries still to be merged follow: first those of an earlier lock, in
its order, then new ones in the order of the recipe. The repos of a query are ordered by their time of creation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from merge_recipes import LockedModel, ModelCollection, ModelQuery, ModelReference, Recipe, StreamEntry
from merge_recipes.references import is_commit

MAX_NAME_CHARACTERS = 96

Find = Callable[[ModelQuery | ModelCollection], Iterable[str]]
"""Function that returns the repos of a query in merge order."""

Look = Callable[[ModelReference], tuple[str, str | None] | None]
"""Function that returns the newest commit of a reference and of its adapter, None if it is no longer readable."""


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
        look: Search for new commits of merged entries (`on_update: append`), None to search for none.
    """
    written = _written_entries(recipe, locked, merged, find)
    entries = _with_new_commits(recipe, written, locked[:merged])
    pinned = {}
    by_name = {model.name: model for model in locked}
    for entry in entries:
        known = by_name.get(entry.name)
        if known is not None and str(known.reference) == str(entry.model):
            pinned[entry.name] = known.model_copy(update={"reference": entry.model})
    if recipe.on_update == "append" and look is not None:
        for entry, newest in _new_commits(entries, locked[:merged], look):
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
        if entry is None and index < merged and _origin(model, locked[:index]) is None:
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
        if _origin(model, locked[:index]) is None and model.reference.revision is None
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
    return next((choice for choice in map(_as_name, choices) if choice not in names), _numbered(name, names))


def _as_name(text: str) -> str:
    return re.sub(r"^[^A-Za-z0-9]+", "", text)[:MAX_NAME_CHARACTERS] or "model"


def _numbered(name: str, names: set[str]) -> str:
    number = 2
    while (numbered := f"{_as_name(name)[: MAX_NAME_CHARACTERS - 8]}-{number}") in names:
        number += 1
    return numbered


def _with_new_commits(recipe: Recipe, written: list[StreamEntry], merged: Sequence[LockedModel]) -> list[StreamEntry]:
    """Return the written entries with the new commits merged earlier at their positions."""
    listed = {entry.name for entry in recipe.entries}
    entries: list[StreamEntry] = []
    remaining = iter(written)
    for index, model in enumerate(merged):
        origin = _origin(model, merged[:index]) if model.name not in listed else None
        same = next((entry for entry in entries if origin and str(entry.model) == str(origin.reference)), None)
        if same is not None:
            entries.append(same.model_copy(update={"name": model.name}))
        elif (entry := next(remaining, None)) is not None:
            entries.append(entry)
    return entries + list(remaining)


def _origin(model: LockedModel, earlier: Sequence[LockedModel]) -> LockedModel | None:
    """Return the entry of which a model is a later commit: equal reference, and equal name except for a number."""
    name, dash, number = model.name.rpartition("-")
    if not dash or not number.isdigit():
        return None
    return next((one for one in earlier if one.name == name and str(one.reference) == str(model.reference)), None)


def _new_commits(
    entries: Sequence[StreamEntry], merged: Sequence[LockedModel], look: Look
) -> Iterator[tuple[StreamEntry, LockedModel]]:
    names = {entry.name for entry in entries}
    originals = {str(model.reference): model.name for model in reversed(merged)}
    revoked = {entry.revoke for entry in entries}
    for entry in entries:
        if entry.name in revoked or originals.get(str(entry.model)) != entry.name or not can_move(entry.model):
            continue
        known = {(one.commit, one.adapter_commit) for one in merged if str(one.reference) == str(entry.model)}
        now = look(entry.model)
        if now is not None and now not in known:
            name = _numbered(entry.name, names)
            names.add(name)
            newest = LockedModel(name=name, reference=entry.model, commit=now[0], adapter_commit=now[1])
            yield entry.model_copy(update={"name": name}), newest


def can_move(reference: ModelReference) -> bool:
    """Return True for a reference that may resolve to another commit later: a repo without a pinned commit."""
    if reference.is_local:
        return False
    pinned = is_commit(reference.revision)
    return not pinned or (reference.adapter is not None and can_move(reference.adapter))
