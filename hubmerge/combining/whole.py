"""Parts of one recipe, combined into the stream of the whole recipe."""

from __future__ import annotations

from collections.abc import Sequence

from hubmerge.combining.part import Part
from hubmerge.combining.recipe import Placed, tasks_of
from hubmerge.errors import UsageError
from hubmerge.support.text import listed
from merge_recipes import LoadedRecipe, StreamEntry

NAMES_LISTED = 5
"""Number of entries that a message names."""


def placed_in_whole(loaded: LoadedRecipe, entries: Sequence[StreamEntry], parts: Sequence[Part]) -> list[Placed]:
    """Return the parts in the order of a recipe that has all their entries.

    Args:
        loaded: The recipe of the whole stream.
        entries: Its entries in merge order.
        parts: The parts.

    Raises:
        UsageError: An entry is missing, is merged twice or in another way, or is not in the recipe.
    """
    for part in parts:
        _check_method(loaded, part)
    expected = {entry.name: entry for entry in entries}
    owners: dict[str, Part] = {}
    for part in parts:
        for entry in part.entries:
            _check_entry(expected.get(entry.name), entry, part, owners)
            owners[entry.name] = part
    missing = [name for name in expected if name not in owners]
    if missing:
        raise UsageError(
            f"no part merges {listed(missing, NAMES_LISTED)}",
            hint="name all parts of the recipe: repos, or folders",
            file=str(loaded.path),
        )
    position = {name: place for place, name in enumerate(expected)}
    ordered = sorted(parts, key=lambda part: position[part.entries[0].name])
    if [entry.name for part in ordered for entry in part.entries] != [*expected]:
        raise UsageError(
            "the parts do not follow one another in the recipe: their entries are mixed",
            hint="merge each part with `hubmerge run RECIPE --part NUMBER/COUNT`",
            file=str(loaded.path),
        )
    return [
        Placed(part, {entry.name: entry.name for entry in part.entries}, {one.name: one.name for one in tasks_of(part)})
        for part in ordered
    ]


def _check_method(loaded: LoadedRecipe, part: Part) -> None:
    ours, theirs = (
        {
            "merge_method": recipe.merge_method,
            "parameters": dict(recipe.parameters),
            "dtype": recipe.dtype,
            "state_dtype": recipe.state_dtype,
            "tensors": recipe.tensors,
        }
        for recipe in (loaded.recipe, part.recipe)
    )
    for key, value in ours.items():
        if theirs[key] != value:
            raise UsageError(
                f"{part.label} was merged with another `{key}` than {loaded.path} has: {theirs[key]}, not {value}",
                hint="merge the part again from this recipe, or combine the streams with --into OWNER/NAME",
                **part.place,
            )


def _check_entry(expected: StreamEntry | None, entry: StreamEntry, part: Part, owners: dict[str, Part]) -> None:
    name = entry.name
    if expected is None:
        message, hint = f"{name} of {part.label} is not in the recipe", "add it to the recipe, or leave the part out"
    elif name in owners:
        message, hint = f"{name} is merged in {owners[name].label} and in {part.label}", "name each part once"
    elif (entry.model, entry.parameters, entry.revoke) != (expected.model, expected.parameters, expected.revoke):
        message = f"{name} of {part.label} was merged as {entry.model}, with other parameters or from another model"
        hint = "merge the part again from this recipe"
    else:
        return
    raise UsageError(message, hint=hint, **part.place)
