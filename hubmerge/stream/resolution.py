"""Resolution of a recipe: every reference to a commit, from earlier locks or from the Hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hubmerge.errors import ErrorCollector, HubError
from hubmerge.hub.failures import is_outage
from hubmerge.hub.listing import find_models, newest_commits
from hubmerge.methods import is_joint
from hubmerge.stream.expansion import Expansion, expand
from hubmerge.stream.joint_steps import joint_steps
from hubmerge.stream.lockfile import lock_path
from hubmerge.stream.pinned import PinnedCommits, check_same
from hubmerge.stream.sources import SourceResolver
from hubmerge.stream.stages import lock_stages, read_locked_stages, with_stages
from hubmerge.stream.stream import Stream
from hubmerge.stream.task_datasets import Commits, resolve_datasets
from merge_recipes import LoadedRecipe, Lock, chain_digests, lock_recipe

TaskCheck = Callable[[LoadedRecipe, Commits, ErrorCollector], None]
"""Function that collects the mistakes of the tasks whose datasets have commits."""


def resolve_stream(
    loaded: LoadedRecipe,
    pinned: PinnedCommits,
    *,
    replay: bool = False,
    hash_folders: bool = False,
    check_tasks: TaskCheck | None = None,
) -> Stream:
    """Resolve every reference of a recipe to a commit.

    References with a pinned commit keep it: new commits in a source repo do not change a stream. With
    `on_update: append`, a new commit of a merged checkpoint becomes an entry of its own at the end; with
    `on_update: replace`, an entry before it takes the older commit out; with `on_update: replay`, every checkpoint is
    resolved to its newest commit.

    Args:
        loaded: The recipe.
        pinned: Commits pinned by earlier locks.
        replay: Follow the order of the recipe, even where it differs from what is merged.
        hash_folders: Hash local folders on all CPUs and import model classes meanwhile, for a run that needs both.
        check_tasks: Function that collects other mistakes of the tasks if something cannot be resolved.

    Raises:
        HubError: A repo or revision is missing, private or gated, or the queries find nothing.
        CombinedError: Several datasets cannot be resolved, or tasks have mistakes too.
        RecipeError: A lock does not match the recipe.
    """
    replay = replay or (loaded.recipe.on_update == "replay" and not pinned.exact)
    collector = ErrorCollector(is_outage)
    resolver = SourceResolver(pinned.locks, models=loaded.recipe.on_update != "replay" or pinned.exact)
    commits = resolve_datasets(loaded, resolver.resolve, collector)
    if not collector.errors:
        with collector.collect():
            expansion, lock = _resolve(loaded, pinned, resolver, replay=replay, hash_folders=hash_folders)
    if collector.errors and check_tasks is not None:
        check_tasks(loaded, commits, collector)
    collector.check()
    return _stream(loaded, expansion, lock, pinned, replay=replay)


def _stream(loaded: LoadedRecipe, expansion: Expansion, lock: Lock, pinned: PinnedCommits, *, replay: bool) -> Stream:
    resolved = replace(loaded, recipe=loaded.recipe.with_stream(expansion.entries))
    stages = read_locked_stages(loaded, lock)
    if is_joint(resolved.recipe):
        chain, inputs = joint_steps(resolved.recipe, lock, pinned.recorded)
        return Stream(resolved, lock, chain, pinned.target, replay, inputs=inputs, stages=stages)
    return Stream(resolved, lock, chain_digests(resolved.recipe, lock), pinned.target, replay, stages=stages)


def _resolve(
    loaded: LoadedRecipe, pinned: PinnedCommits, resolver: SourceResolver, *, replay: bool, hash_folders: bool
) -> tuple[Expansion, Lock]:
    if pinned.exact:
        return _resolve_exactly(loaded, pinned, resolver)
    recipe = loaded.recipe
    known, merged = ((), 0) if replay else (pinned.models, pinned.merged)
    stages = lock_stages(loaded, resolver, lambda stage: lock_recipe(stage, resolver))
    expansion = expand(recipe, known, merged, find_models, newest_commits)
    if not expansion.entries:
        raise HubError(
            f"{loaded.path}: the queries find no model on the Hub",
            hint="check author, name and tags of the queries",
            file=str(loaded.path),
        )
    if hash_folders:
        new = [entry.model for entry in expansion.entries if entry.name not in expansion.pinned]
        resolver.hash_folders(recipe.base_model, new, classes=recipe.evaluate is not None)
    lock = lock_recipe(loaded, resolver, entries=expansion.entries, pinned=expansion.pinned)
    return expansion, with_stages(lock, stages)


def _resolve_exactly(loaded: LoadedRecipe, pinned: PinnedCommits, resolver: SourceResolver) -> tuple[Expansion, Lock]:
    """Resolve a recipe from the lock beside it alone, without queries."""
    (lock,) = pinned.locks
    stages = lock_stages(loaded, resolver, lambda stage: lock_recipe(stage, resolver))
    expansion = expand(loaded.recipe, lock.models, len(lock.models), lambda _: (), None)
    resolved = lock_recipe(loaded, resolver, entries=expansion.entries, pinned=expansion.pinned)
    resolved = with_stages(resolved, stages)
    check_same(resolved, lock, str(lock_path(loaded.path)))
    return expansion, resolved
