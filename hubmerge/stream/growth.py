"""Streams that grow by themselves: what a recipe's queries find, and new commits of checkpoints already merged.

What is merged keeps its place for ever. After it come the entries still to be merged: those that an earlier lock knows
in its order, then new ones in the order of the recipe, a query's in the order in which the repos were made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from merge_recipes import LockedModel, ModelCollection, ModelQuery, ModelReference, Recipe, StreamEntry
from merge_recipes.references import is_commit

MAX_NAME_CHARACTERS = 96

Find = Callable[[ModelQuery | ModelCollection], Iterable[str]]
"""Returns the repos that a query stands for, in the order in which they are to be merged."""

Look = Callable[[ModelReference], tuple[str, str | None] | None]
"""Returns the commit and the adapter's commit a reference stands at now, None if it cannot be read any more."""


@dataclass(frozen=True)
class Expansion:
    """The stream in merge order, and the entries whose commits are known already, by name."""

    entries: tuple[StreamEntry, ...]
    settled: dict[str, LockedModel]


def expand(recipe: Recipe, locked: Sequence[LockedModel], merged: int, find: Find, look: Look | None) -> Expansion:
    """Return the stream that a recipe stands for, given what was locked before and how much of that is merged.

    `look` finds new commits of merged entries for `on_update: append`; None where there is nothing to look for.
    """
    written = _written(recipe, locked, merged, find)
    entries = _woven(recipe, written, locked[:merged])
    settled = {}
    by_name = {model.name: model for model in locked}
    for entry in entries:
        known = by_name.get(entry.name)
        if known is not None and str(known.reference) == str(entry.model):
            settled[entry.name] = known.model_copy(update={"reference": entry.model})
    if recipe.on_update == "append" and look is not None:
        for entry, newest in _new_commits(entries, locked[:merged], look):
            entries.append(entry)
            settled[entry.name] = newest
    return Expansion(tuple(entries), settled)


def _written(recipe: Recipe, locked: Sequence[LockedModel], merged: int, find: Find) -> list[StreamEntry]:
    """The entries that the recipe names or its queries find, each once, in merge order."""
    if not recipe.has_queries:
        return list(recipe.stream())
    found = _found(recipe, locked, find)
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


def _found(recipe: Recipe, locked: Sequence[LockedModel], find: Find) -> list[StreamEntry]:
    """The entries that the recipe names, and for each query a new entry for every repo that is not there yet."""
    taken = {entry.model.path for entry in recipe.entries} | {recipe.base_model.path}
    if recipe.publish is not None:
        taken.add(recipe.publish.repo)
    names = {model.name for model in locked} | {entry.name for entry in recipe.entries}
    held = {
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
            name = held.get(repo) or _free_name(repo, names)
            names.add(name)
            entries.append(StreamEntry(model=ModelReference(repo), name=name))
    return entries


def _free_name(repo: str, names: set[str]) -> str:
    """The last part of a repo's path; with its owner in front, then with a number, where that is taken."""
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


def _woven(recipe: Recipe, written: list[StreamEntry], merged: Sequence[LockedModel]) -> list[StreamEntry]:
    """The written entries in their order, and between them the new commits merged before, at their places."""
    listed = {entry.name for entry in recipe.entries}
    entries: list[StreamEntry] = []
    upcoming = iter(written)
    for index, model in enumerate(merged):
        origin = _origin(model, merged[:index]) if model.name not in listed else None
        same = next((entry for entry in entries if origin and str(entry.model) == str(origin.reference)), None)
        if same is not None:
            entries.append(same.model_copy(update={"name": model.name}))
        elif (entry := next(upcoming, None)) is not None:
            entries.append(entry)
    return entries + list(upcoming)


def _origin(model: LockedModel, earlier: Sequence[LockedModel]) -> LockedModel | None:
    """The entry that a locked model is a later commit of: the same reference, and the same name but for a number."""
    name, dash, number = model.name.rpartition("-")
    if not dash or not number.isdigit():
        return None
    return next((one for one in earlier if one.name == name and str(one.reference) == str(model.reference)), None)


def _new_commits(
    entries: Sequence[StreamEntry], merged: Sequence[LockedModel], look: Look
) -> Iterator[tuple[StreamEntry, LockedModel]]:
    names = {entry.name for entry in entries}
    originals = {str(model.reference): model.name for model in reversed(merged)}
    for entry in entries:
        if originals.get(str(entry.model)) != entry.name or not can_move(entry.model):
            continue
        known = {(one.commit, one.adapter_commit) for one in merged if str(one.reference) == str(entry.model)}
        now = look(entry.model)
        if now is not None and now not in known:
            name = _numbered(entry.name, names)
            names.add(name)
            newest = LockedModel(name=name, reference=entry.model, commit=now[0], adapter_commit=now[1])
            yield entry.model_copy(update={"name": name}), newest


def can_move(reference: ModelReference) -> bool:
    """Tell whether a reference may stand for another commit tomorrow: a repo, not pinned to a commit."""
    if reference.is_local:
        return False
    pinned = is_commit(reference.revision)
    return not pinned or (reference.adapter is not None and can_move(reference.adapter))
