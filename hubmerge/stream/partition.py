"""Parts of a stream: `--part 2/8` is the second of eight runs of entries, which another machine merges on its own.

The parts are contiguous, so that the first one is the beginning of the whole stream. Their states add up to that of the
whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hubmerge.errors import UsageError
from hubmerge.methods import METHODS, Method, method_of
from hubmerge.stream.expansion import expand
from hubmerge.stream.lockfile import lock_path, read_lock, require_lock
from hubmerge.support.text import counted, in_shell
from merge_recipes import LoadedRecipe, ModelReference, StreamEntry

_PART = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Partition:
    """One of several parts, such as 2/8.

    Attributes:
        number: Number of the part, from 1.
        count: Number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Read a part.

        >>> str(Partition.parse("2/8"))
        '2/8'

        Raises:
            UsageError: The text is not a part.
        """
        found = _PART.fullmatch(text)
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"{text!r} is not a part: expected NUMBER/COUNT", hint="write for example --part 2/8")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, length: int) -> range:
        """Return the positions of the part in a list; the first parts are longer by one if they are not equal.

        >>> [list(Partition(number, 3).of(5)) for number in (1, 2, 3)]
        [[0, 1], [2, 3], [4]]
        """
        size, longer = divmod(length, self.count)
        begin = (self.number - 1) * size + min(self.number - 1, longer)
        return range(begin, begin + size + (self.number <= longer))


def part_repo(repo: str, part: Partition) -> str:
    """Return the repo of a part, from that of the whole stream.

    >>> part_repo("me/merged", Partition(2, 8))
    'me/merged-part-2-of-8'
    """
    return f"{repo}-part-{part.number}-of-{part.count}"


def whole_entries(loaded: LoadedRecipe) -> tuple[StreamEntry, ...]:
    """Return the entries of a recipe in merge order; those that queries find come from the lock beside it.

    Raises:
        UsageError: The recipe has queries and no lock.
        RecipeError: The lock beside it was made from another recipe.
    """
    recipe = loaded.recipe
    if not recipe.has_queries:
        return recipe.stream()
    if read_lock(loaded) is None:
        raise UsageError(
            f"{loaded.path} has queries, which may find other models on each machine",
            hint=f"run `hubmerge lock {in_shell(loaded.path)}`, and copy {lock_path(loaded.path).name} to all machines",
            file=str(loaded.path),
        )
    lock = require_lock(loaded)
    return expand(recipe, lock.models, len(lock.models), lambda _: (), None).entries


def entries_in_parts(loaded: LoadedRecipe, count: int, asked: str) -> tuple[StreamEntry, ...]:
    """Return the entries of a recipe in merge order, if there is one for each of so many parts.

    Args:
        loaded: The recipe of the whole stream.
        count: The number of parts.
        asked: The option that asks for them, for messages.

    Raises:
        UsageError: There are fewer entries, or the method does not allow parts.
    """
    check_adds(loaded)
    entries = whole_entries(loaded)
    if count > len(entries):
        has = counted(len(entries), "entry", "entries")
        raise UsageError(
            f"{asked}: {loaded.path} has {has}: too few for so many parts",
            hint=f"use at most {counted(len(entries), 'part')}",
            file=str(loaded.path),
        )
    return entries


def part_keys(loaded: LoadedRecipe, part: Partition) -> dict[str, Any]:
    """Return the keys of the recipe of a part: its entries, without tasks, into a repo of its own.

    Args:
        loaded: The recipe of the whole stream.
        part: The part.

    Raises:
        UsageError: The method or the entries do not allow parts.
    """
    entries = entries_in_parts(loaded, part.count, f"--part {part}")
    chosen = [entries[place] for place in part.of(len(entries))]
    _check_revoked(chosen, part)
    recipe = loaded.recipe
    left_out = {"models", "evaluate", "read", "publish", "order", "seed", "on_update", "base_model"}
    keys = recipe.model_dump(mode="json", exclude_defaults=True, exclude=left_out)
    keys["base_model"] = absolute_text(recipe.base_model)
    keys["models"] = [
        {**one.model_dump(mode="json", exclude_defaults=True), "name": one.name, "model": absolute_text(one.model)}
        for one in chosen
    ]
    if recipe.publish is not None:
        published = recipe.publish.model_dump(mode="json", exclude_defaults=True)
        keys["publish"] = {**published, "repo": part_repo(recipe.publish.repo, part), "steps": "last", "state": "last"}
    return keys


def check_adds(loaded: LoadedRecipe) -> None:
    """Check that the states of the method add up.

    Raises:
        UsageError: They do not.
    """
    method = method_of(loaded.recipe)
    if loaded.stages:
        raise UsageError(
            f"{loaded.path} has several documents, which are merged one after another",
            hint="publish the models of the first ones, and name their repos in a recipe of one document",
            file=str(loaded.path),
        )
    if isinstance(method, Method) and method.adds:
        return
    able = ", ".join(one.name for one in METHODS if one.adds)
    cause = (
        "merges all models at once"
        if not isinstance(method, Method)
        else ("adds to the result what depends on the checkpoints merged before")
    )
    raise UsageError(
        f"{method.name} cannot merge a stream in parts: it {cause}",
        hint=f"use one of {able}",
        file=str(loaded.path),
    )


def _check_revoked(chosen: Sequence[StreamEntry], part: Partition) -> None:
    names: set[str] = set()
    for entry in chosen:
        if entry.revoke is not None and entry.revoke not in names:
            raise UsageError(
                f"part {part} takes out {entry.revoke}, which another part merges",
                hint="run fewer parts, or remove both entries from the recipe",
            )
        names.add(entry.name)


def absolute_text(reference: ModelReference) -> str:
    """Return a reference as a recipe in any folder names it: local paths are absolute."""
    adapter = None if reference.adapter is None else ModelReference.parse(absolute_text(reference.adapter))
    if reference.is_local:
        reference = replace(reference, path=str(Path(reference.path).absolute()))
    return str(replace(reference, written_path=None, adapter=adapter))
