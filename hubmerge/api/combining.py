"""Combination of published streams into one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hubmerge.api.merging import FolderLike, StepRun
from hubmerge.api.places import place_of
from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.errors import UsageError
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder
from hubmerge.support.text import in_shell

if TYPE_CHECKING:
    from hubmerge.combining.part import Part
    from hubmerge.combining.recipe import Placed
    from hubmerge.report.report import RunReport
    from hubmerge.run.output_folder import OutputFolder
    from hubmerge.support.progress import Progress
    from merge_recipes import LoadedRecipe

Duplicates = Literal["refuse", "subtract"]


@dataclass(frozen=True)
class CombinedStream:
    """A stream that `combine` made."""

    report: RunReport
    """Report of the stream: all entries of all parts, with their commits and licenses."""
    addresses: tuple[str, ...]
    """Web address of the published step; none if nothing is published."""
    added: int
    """Number of steps that were added, 0 if all were there."""
    subtracted: tuple[str, ...] = ()
    """Names of the entries that were taken out, because another stream had their checkpoints too."""


def combine(
    streams: Sequence[str | os.PathLike[str]],
    *,
    into: str | None = None,
    out: FolderLike | None = None,
    state: bool = False,
    recipe: RecipeLike | None = None,
    duplicates: Duplicates = "refuse",
    work_dir: FolderLike | None = None,
    progress: ProgressOption = "auto",
) -> CombinedStream:
    """Combine streams of one base model into one, by adding their states; no checkpoint is downloaded.

    The result is the stream of all their entries, one stream after another: it can be extended, verified, read and
    combined again, and entries of it can be revoked. The merged model is that of one run over all entries, up to
    rounding.

    Args:
        streams: published repos, each with the step as revision unless it is the newest (`owner/name@step-03`), or
            folders that `StepRun(..., out=..., state=True)` wrote.
        into: the repo to publish to.
        out: write the merged model to this folder.
        state: with `out`, also write the state, so that the folder can be combined again.
        recipe: the recipe that the streams are parts of, see `load_part`; it then names the repo to publish to.
        duplicates: `"refuse"` checkpoints that two streams have, or `"subtract"` to count each once.
        work_dir: folder for states and caches; in the user's cache folder by default.
        progress: see `hubmerge.run`.

    Raises:
        UsageError: the streams cannot be combined, or an argument has no effect; nothing was downloaded.
        HubError: a repo cannot be read, or has no state.
        TargetError: `into` has another stream.

    Example:
        hubmerge.combine(["me/animals", "you/plants"], into="us/living")
    """
    _check_arguments(into, out, recipe, duplicates, state=state)
    reports, folder = open_progress(progress), _output_folder(out, state=state)
    work = user_cache_folder("runs") if work_dir is None else Path(work_dir)
    return _combine(streams, into, recipe, duplicates, folder, work, reports)


def _check_arguments(
    into: str | None, out: FolderLike | None, recipe: RecipeLike | None, duplicates: Duplicates, *, state: bool
) -> None:
    if into is None and out is None and recipe is None:
        raise UsageError("the combined stream has no place", hint="add --into OWNER/NAME, or --out DIR")
    if into is not None and recipe is not None:
        raise UsageError("a recipe names its target repo itself", hint="remove --into, or --recipe")
    if state and out is None:
        raise UsageError("--state requires --out DIR", hint="add --out DIR")
    if recipe is not None and duplicates != "refuse":
        message = "--duplicates subtract has no effect with --recipe, whose parts have no entry in common"
        raise UsageError(message, hint="remove --duplicates subtract, or --recipe")


def _output_folder(out: FolderLike | None, *, state: bool) -> OutputFolder | None:
    from hubmerge.run.output_folder import OutputFolder

    return None if out is None else OutputFolder(Path(out), with_state=state)


def _combine(
    streams: Sequence[str | os.PathLike[str]],
    into: str | None,
    recipe: RecipeLike | None,
    duplicates: Duplicates,
    folder: OutputFolder | None,
    work: Path,
    progress: Progress,
) -> CombinedStream:
    """Add the states of streams, then take out the entries that another stream has too."""
    from hubmerge.combining.checks import check_parts, duplicates_of
    from hubmerge.combining.combine import combine_streams

    with interrupts.handled():
        whole = None if recipe is None else load(recipe, progress=progress)
        found = _read_parts(streams, progress)
        check_parts(found)
        loaded, placed = _placed(found, whole, into, progress, duplicates)
        doubled = [(part, name) for _, _, part, name in duplicates_of(found)] if whole is None else []
        made = combine_streams(loaded, placed, work, progress, out=None if doubled else folder)
    if not doubled:
        return CombinedStream(made.report, made.addresses, made.added)
    names = tuple(_new_name(placed, part, name) for part, name in doubled)
    return _subtract(loaded, names, made.added, folder, work, progress)


def _read_parts(streams: Sequence[str | os.PathLike[str]], progress: Progress) -> list[Part]:
    from hubmerge.combining.part import read_part

    parts = []
    with progress.stage("read the streams", len(streams)) as advance:
        for stream in streams:
            parts.append(read_part(*place_of(os.fspath(stream))))
            advance(1)
    return parts


def _placed(
    parts: Sequence[Part], whole: LoadedRecipe | None, into: str | None, progress: Progress, duplicates: Duplicates
) -> tuple[LoadedRecipe, list[Placed]]:
    """Return the recipe of the combined stream, and the parts in its order."""
    from hubmerge.combining.checks import check_no_duplicates, check_states
    from hubmerge.combining.recipe import combined_keys, placed_parts
    from hubmerge.combining.whole import placed_in_whole
    from hubmerge.stream.partition import whole_entries

    if whole is None:
        if duplicates == "refuse":
            check_no_duplicates(parts)
        placed = placed_parts(parts)
        loaded = load(combined_keys(placed, into), progress=progress)
    else:
        loaded, placed = whole, placed_in_whole(whole, whole_entries(whole), parts)
    check_states(parts)
    return loaded, placed


def _new_name(placed: Sequence[Placed], part: Part, name: str) -> str:
    return next(one.names[name] for one in placed if one.part is part)


def _subtract(
    loaded: LoadedRecipe,
    names: tuple[str, ...],
    added: int,
    folder: OutputFolder | None,
    work: Path,
    progress: Progress,
) -> CombinedStream:
    """Take entries out of a combined stream, in further steps."""
    keys: Mapping[str, Any] = loaded.document.data
    models = {entry.name: str(entry.model) for entry in loaded.recipe.entries}
    revoked = [{"model": models[name], "revoke": name} for name in names]
    steps = StepRun(
        {**keys, "models": [*keys["models"], *revoked]},
        out=None if folder is None else folder.folder,
        state=folder is not None and folder.with_state,
        work_dir=work,
        progress=progress,
    )
    report = steps.finish()
    return CombinedStream(report, tuple(steps.addresses[-1:]), added + len(steps.steps), names)


def load_part(recipe: RecipeLike, part: str, *, locked: bool = False, progress: ProgressOption = None) -> LoadedRecipe:
    """Return the recipe of one part of a stream, for another machine; `combine` makes the whole of all parts.

    The part has a run of the entries, in the order of the stream. It is not scored, which is said if the recipe has
    tasks: `combine` scores the whole. It is published to a repo of its own,
    `owner/name-part-2-of-8`; a run with `out` writes its state there too.

    Args:
        recipe: the recipe of the whole stream.
        part: number and count of the part, such as `"2/8"`.
        locked: check that there is a lock beside the recipe, from which all machines take their commits.
        progress: see `hubmerge.run`.

    Raises:
        UsageError: the method or the entries do not allow parts.
        RecipeError: the recipe has problems, or there is no lock.

    Example:
        hubmerge.run(hubmerge.load_part("recipe.yaml", "2/8")).finish()
    """
    from hubmerge.stream.lockfile import require_lock
    from hubmerge.stream.partition import Partition, part_keys

    whole = load(recipe, progress=progress)
    if locked:
        require_lock(whole)
    chosen = Partition.parse(part)
    if whole.recipe.evaluate is not None:
        open_progress(progress).note(
            f"part {chosen} is not scored: `hubmerge combine --recipe {in_shell(whole.path)}` scores the whole on all "
            "tasks"
        )
    return replace(load(part_keys(whole, chosen), progress=progress), path=whole.path, part=str(chosen))


def part_repos(recipe: RecipeLike, count: int) -> list[str]:
    """Return the repos of the parts of a recipe.

    Raises:
        UsageError: the recipe publishes nothing, or has fewer entries.
    """
    from hubmerge.stream.partition import Partition, entries_in_parts, part_repo

    loaded = load(recipe)
    publish = loaded.recipe.publish
    if publish is None:
        raise UsageError("the recipe publishes nothing, so its parts are in folders", hint="name the folders")
    entries_in_parts(loaded, count, f"--parts {count}")
    return [part_repo(publish.repo, Partition(number, count)) for number in range(1, count + 1)]
