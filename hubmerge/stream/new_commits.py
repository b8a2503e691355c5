"""New commits of merged checkpoints: entries that runs add to a stream, and that its recipe does not list.

With `on_update: append`, a new commit of the entry `a` is the entry `a-2` at the end. With `on_update: replace`, an
entry `a-revoked` before it takes the older commit out of the merge. Both are known again by names, references and
commits in the lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence

from merge_recipes import LockedModel, ModelReference, Recipe, StreamEntry
from merge_recipes.references import is_commit
from merge_recipes.schema import REVOKED

MAX_NAME_CHARACTERS = 96
_REVOKED_NAME = re.compile(rf"(?P<name>.+){REVOKED}(-\d+)?")

Look = Callable[[ModelReference], tuple[str, str | None] | None]
"""Function that returns the newest commit of a reference and of its adapter, None if it is no longer readable."""


def insert_new_commits(
    recipe: Recipe, written: Sequence[StreamEntry], merged: Sequence[LockedModel]
) -> list[StreamEntry]:
    """Return the written entries, with the entries that earlier runs added at their positions."""
    listed = {entry.name for entry in recipe.entries}
    entries: list[StreamEntry] = []
    remaining = iter(written)
    for index, model in enumerate(merged):
        added = _added_entry(model, merged[:index], entries) if model.name not in listed else None
        if added is not None:
            entries.append(added)
        elif (entry := next(remaining, None)) is not None:
            entries.append(entry)
    return entries + list(remaining)


def is_added(model: LockedModel, earlier: Sequence[LockedModel]) -> bool:
    """Return True if a model is a later commit of an earlier one, or takes an earlier one out of the merge."""
    return original_of(model, earlier) is not None or revoked_of(model, earlier) is not None


def original_of(model: LockedModel, earlier: Sequence[LockedModel]) -> LockedModel | None:
    """Return the entry of which a model is a later commit: equal reference, and equal name except for a number."""
    name, dash, number = model.name.rpartition("-")
    if not dash or not number.isdigit():
        return None
    return next((one for one in earlier if one.name == name and str(one.reference) == str(model.reference)), None)


def revoked_of(model: LockedModel, earlier: Sequence[LockedModel]) -> LockedModel | None:
    """Return the entry that a model takes out of the merge: equal reference and commits, and its name with an end."""
    match = _REVOKED_NAME.fullmatch(model.name)
    if match is None:
        return None
    wanted = (revoked_name(match["name"]), *_identity(model))
    return next((one for one in earlier if (revoked_name(one.name), *_identity(one)) == wanted), None)


def revoked_name(name: str) -> str:
    """Return the name of a step that takes the entry of a name out of the merge."""
    return name[: MAX_NAME_CHARACTERS - len(REVOKED) - 8] + REVOKED


def _identity(model: LockedModel) -> tuple[str, str, str | None]:
    return str(model.reference), model.commit, model.adapter_commit


def new_commits(
    recipe: Recipe, entries: Sequence[StreamEntry], merged: Sequence[LockedModel], look: Look
) -> Iterator[tuple[StreamEntry, LockedModel]]:
    """Yield the entries that new commits of merged entries add to a stream, each with its commits.

    Args:
        recipe: the recipe, whose `on_update` decides what is added.
        entries: the stream so far.
        merged: the models that are merged.
        look: the search for new commits.
    """
    if recipe.on_update not in {"append", "replace"}:
        return
    names = {entry.name for entry in entries}
    originals = {str(model.reference): model.name for model in reversed(merged)}
    for entry in entries:
        if originals.get(str(entry.model)) != entry.name or not can_move(entry.model):
            continue
        live = merged_commits(recipe, entries, merged, entry)
        if live is None:
            continue
        known = live if recipe.on_update == "replace" else [one for one in merged if _alike(one, entry)]
        now = look(entry.model)
        if now is None or now in [(one.commit, one.adapter_commit) for one in known]:
            continue
        if recipe.on_update == "replace":
            for older in live:
                name = _free_name(revoked_name(older.name), names)
                yield (
                    StreamEntry(model=entry.model, name=name, revoke=older.name),
                    older.model_copy(update={"name": name, "reference": entry.model}),
                )
        name = numbered_name(entry.name, names)
        names.add(name)
        newest = LockedModel(name=name, reference=entry.model, commit=now[0], adapter_commit=now[1])
        yield entry.model_copy(update={"name": name}), newest


def merged_commits(
    recipe: Recipe, entries: Sequence[StreamEntry], merged: Sequence[LockedModel], entry: StreamEntry
) -> list[LockedModel] | None:
    """Return the commits of an entry's reference that are in the merge; None if its recipe took them all out.

    The list is empty if a run took the older commit out, and ended before it merged the newer one.
    """
    same = [one for one in entries if str(one.model) == str(entry.model)]
    revoked = {one.revoke for one in same if one.revoke is not None}
    live = {one.name for one in same if one.revoke is None} - revoked
    found = [model for model in merged if model.name in live]
    listed = {one.name for one in recipe.entries}
    pending = bool(revoked) and same[-1].revoke is not None and same[-1].name not in listed
    return found if found or pending else None


def can_move(reference: ModelReference) -> bool:
    """Return True for a reference that may resolve to another commit later: a repo without a pinned commit."""
    if reference.is_local:
        return False
    pinned = is_commit(reference.revision)
    return not pinned or (reference.adapter is not None and can_move(reference.adapter))


def numbered_name(name: str, names: Collection[str]) -> str:
    """Return a name with the first number from 2 on that makes it new."""
    number = 2
    while (numbered := f"{name[: MAX_NAME_CHARACTERS - 8]}-{number}") in names:
        number += 1
    return numbered


def _free_name(name: str, names: set[str]) -> str:
    free = numbered_name(name, names) if name in names else name
    names.add(free)
    return free


def _added_entry(
    model: LockedModel, earlier: Sequence[LockedModel], entries: Sequence[StreamEntry]
) -> StreamEntry | None:
    """Return the entry of a model that an earlier run added, None for a model of the recipe."""
    out = revoked_of(model, earlier)
    if out is not None:
        merged = next((entry for entry in entries if entry.name == out.name and entry.revoke is None), None)
        return None if merged is None else StreamEntry(model=merged.model, name=model.name, revoke=out.name)
    origin = original_of(model, earlier)
    same = next((entry for entry in entries if origin and str(entry.model) == str(origin.reference)), None)
    return None if same is None else same.model_copy(update={"name": model.name})


def _alike(model: LockedModel, entry: StreamEntry) -> bool:
    return str(model.reference) == str(entry.model)
