"""Recipe of a combined stream: the entries of all its parts, one part after another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.combining.checks import fold_of
from hubmerge.combining.part import Part
from hubmerge.errors import UsageError
from hubmerge.stream.partition import absolute_text
from merge_recipes import StreamEntry, Task, task_entries
from merge_recipes.parameters import is_per_entry, parameter_fields

WHOLE_STREAM = frozenset({"normalize", "lambda", "precision"})
"""Parameters that a state depends on and that all entries share. Others that they share only choose the read-out."""

_NAME_CHARACTERS = 88


@dataclass(frozen=True)
class Placed:
    """A part with its place in the combined stream.

    Attributes:
        part: The part.
        names: Names of its entries in the combined stream, by their names in the part.
        tasks: Names of its tasks there, by their names in the part.
    """

    part: Part
    names: Mapping[str, str]
    tasks: Mapping[str, str]


def placed_parts(parts: Sequence[Part]) -> list[Placed]:
    """Return the parts with names for their entries and tasks; names that an earlier part has get a number."""
    found: list[Placed] = []
    for part in parts:
        taken = {name for one in found for name in one.names.values()}
        names = _free_names([entry.name for entry in part.entries], taken)
        taken = {name for one in found for name in one.tasks.values()}
        found.append(Placed(part, names, _free_names([task.name for task in tasks_of(part)], taken)))
    return found


def combined_keys(placed: Sequence[Placed], into: str | None) -> dict[str, Any]:
    """Return the keys of the recipe; settings of the stream as a whole are those of the first part.

    Args:
        placed: The parts.
        into: The target repo, None to publish nothing.

    Raises:
        UsageError: Parameters differ that all entries of a stream share.
    """
    first = placed[0].part.recipe
    left_out = {"models", "evaluate", "publish", "order", "seed", "on_update", "fetch", "base_model"}
    keys = first.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    keys["base_model"] = absolute_text(first.base_model)
    keys["models"] = [
        _entry(entry, one.names, _own_parameters(placed[0].part, one.part))
        for one in placed
        for entry in one.part.entries
    ]
    decides = None if first.read is None else first.read.on
    tasks = [
        _task(task, one)
        for number, one in enumerate(placed)
        for task in tasks_of(one.part)
        if not task.validation or (number == 0 and task.name == decides)
    ]
    if tasks:
        size = next(one.part.recipe.evaluate.batch_size for one in placed if one.part.recipe.evaluate is not None)
        keys["evaluate"] = {"tasks": tasks, "batch_size": size}
    if into is not None:
        published = {} if first.publish is None else first.publish.model_dump(mode="json", exclude_defaults=True)
        published.pop("sign", None)
        keys["publish"] = {**published, "repo": into}
    return keys


def _own_parameters(first: Part, part: Part) -> dict[str, Any]:
    """Return the parameters that the entries of a part need of their own, because the whole stream has others.

    Raises:
        UsageError: A parameter differs that all entries share.
    """
    ours, theirs = first.recipe.parameters, part.recipe.parameters
    fields = parameter_fields(fold_of(part).Parameters)
    own = {}
    for key in sorted({*ours, *theirs}):
        known = fields[key].default if key in fields else None
        one, other = ours.get(key, known), theirs.get(key, known)
        if one == other:
            continue
        if key in WHOLE_STREAM:
            raise UsageError(
                f"{part.label} was merged with {key} = {other}, {first.label} with {one}: all entries of a stream "
                "share it",
                hint=f"merge both streams with the same `{key}`",
                **part.place,
            )
        if key in fields and is_per_entry(fields[key]):
            own[key] = theirs[key] if key in theirs else fields[key].default
    return own


def _entry(entry: StreamEntry, names: Mapping[str, str], parameters: Mapping[str, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {"model": absolute_text(entry.model), "name": names[entry.name]}
    if entry.revoke is not None:
        return {**keys, "revoke": names[entry.revoke]}
    own = {**parameters, **entry.parameters}
    return {**keys, "parameters": own} if own else keys


def _task(task: Task, placed: Placed) -> dict[str, Any]:
    keys = task.model_dump(mode="json", exclude_defaults=True)
    keys["name"] = placed.tasks[task.name]
    entry = task_entries(placed.part.recipe)[task.name]
    return keys if entry is None else {**keys, "model": placed.names[entry]}


def tasks_of(part: Part) -> tuple[Task, ...]:
    """Return the tasks of a part."""
    return part.recipe.evaluate.tasks if part.recipe.evaluate is not None else ()


def _free_names(own: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in own:
        number, free = 2, name
        while free in taken or (free != name and free in {*own, *found.values()}):
            free = f"{name[:_NAME_CHARACTERS]}-{number}"
            number += 1
        found[name] = free
    return found
