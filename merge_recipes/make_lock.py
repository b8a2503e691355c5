"""Locking of recipes: the commit of every model and dataset, found before anything is downloaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

from merge_recipes.digests import recipe_digest
from merge_recipes.errors import KeyPath, LockError, Problem, RecipeError, did_you_mean, format_value
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.lock import LOCK_AGAIN, Lock, LockedDataset, LockedModel
from merge_recipes.references import COMMIT_PATTERN, DIGEST_PATTERN, ModelReference
from merge_recipes.schema import Recipe, StreamEntry

_COMMIT = re.compile(f"{COMMIT_PATTERN}|{DIGEST_PATTERN}")


class Resolver(Protocol):
    """Source of the commits of revisions, such as the Hub."""

    def resolve(self, kind: Literal["model", "dataset"], path: str, revision: str | None) -> str:
        """Return the commit of a revision.

        Args:
            kind: "model" or "dataset".
            path: `owner/name`, or an absolute local path.
            revision: a branch, tag or commit; None for the default branch.

        Returns:
            40 hex digits, or for a local folder `sha256:` and 64 hex digits of the digest of its content.
        """


class _CommitCache:
    """Commits of references, with one request to the resolver per repo and revision."""

    def __init__(self, loaded: LoadedRecipe, resolver: Resolver) -> None:
        self._loaded = loaded
        self._resolver = resolver
        self._commits: dict[tuple[str, str, str | None], str] = {}

    def commit(self, kind: Literal["model", "dataset"], path: str, revision: str | None, key: KeyPath) -> str:
        request = (kind, path, revision)
        if request not in self._commits:
            commit: Any = self._resolver.resolve(kind, path, revision)
            if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
                message = f"{path} resolved to {format_value(commit)}: expected a commit of 40 hex digits"
                raise LockError(self._loaded.document.problem(key, message))
            self._commits[request] = commit
        return self._commits[request]

    def model(self, name: str, reference: ModelReference, key: KeyPath) -> LockedModel:
        adapter = reference.adapter
        return LockedModel(
            name=name,
            reference=reference,
            commit=self.commit("model", reference.path, reference.revision, key),
            adapter_commit=None if adapter is None else self.commit("model", adapter.path, adapter.revision, key),
        )


def lock_recipe(
    loaded: LoadedRecipe,
    resolver: Resolver,
    *,
    entries: Sequence[StreamEntry] | None = None,
    pinned: Mapping[str, LockedModel] | None = None,
) -> Lock:
    """Find the commit of the base model, of every entry of the stream with its adapter, and of every dataset.

    Args:
        loaded: the recipe.
        resolver: the source of commits.
        entries: the stream in merge order if it is longer than the recipe's list: models that queries found, and new
            commits of merged entries.
        pinned: locked models by the name of their entry, for which the resolver is not asked.

    Raises:
        RecipeError: an entry is the base model at the base model's commit.
        LockError: the resolver returned something else than a commit.
    """
    recipe = loaded.recipe
    commits = _CommitCache(loaded, resolver)
    base = commits.model(recipe.base_model.short_name, recipe.base_model, ("base_model",))
    stream = recipe.stream() if entries is None else entries
    models = _locked_models(loaded, stream, base, commits, pinned or {})
    revoked = {entry.revoke for entry in stream}
    if all(entry.name in revoked for entry in stream if entry.revoke is None):
        hint = "remove the repo, or merge another model first"
        raise RecipeError(loaded.document.problem(("models",), "no entry would be left", hint))
    return Lock(
        recipe=recipe_digest(recipe),
        base_model=base,
        tokenizer=_tokenizer(recipe, commits),
        models=tuple(models),
        datasets=_lock_datasets(recipe, commits),
        state_dtype=recipe.state_dtype,
    )


def _locked_models(
    loaded: LoadedRecipe,
    stream: Sequence[StreamEntry],
    base: LockedModel,
    commits: _CommitCache,
    pinned: Mapping[str, LockedModel],
) -> list[LockedModel]:
    """Return the commits of the entries, in merge order."""
    recipe = loaded.recipe
    places = {item.name: index for index, item in enumerate(recipe.models) if isinstance(item, StreamEntry)}
    models: list[LockedModel] = []
    for entry in stream:
        key: KeyPath = ("models", places[entry.name], "model") if entry.name in places else ("models",)
        known = pinned.get(entry.name)
        if entry.revoke is not None:
            known = _revoked(loaded, entry, models, key)
        models.append(known if known is not None else commits.model(entry.name, entry.model, key))
        if not recipe.is_base(entry) and _is_base(models[-1], base, entry, recipe):
            raise RecipeError(loaded.document.problem(key, f"this is the base model: both have commit {base.commit}"))
    return models


def _tokenizer(recipe: Recipe, commits: _CommitCache) -> LockedModel | None:
    """Return the model whose tokenizer the merged model gets, None if it is one of the models of the merge."""
    source = recipe.tokenizer_model
    place: KeyPath = ("tokenizer_source",) if recipe.tokenizer is None else ("tokenizer", "source")
    return None if source is None else commits.model(source.short_name, replace(source, adapter=None), place)


def _revoked(loaded: LoadedRecipe, entry: StreamEntry, earlier: Sequence[LockedModel], key: KeyPath) -> LockedModel:
    """Return the model that an entry takes out of the merge, under the name of that entry."""
    found = next((one for one in earlier if one.name == entry.revoke), None)
    if found is None:
        place = (*key[:-1], "revoke") if key[-1] == "model" else key
        names = [one.name for one in earlier]
        message = (
            f"no earlier entry {format_value(entry.revoke)} is merged here{did_you_mean(entry.revoke or '', names)}"
        )
        raise RecipeError(loaded.document.problem(place, message, "remove this entry"))
    return found.model_copy(update={"name": entry.name})


def _is_base(model: LockedModel, base: LockedModel, entry: StreamEntry, recipe: Recipe) -> bool:
    equal_commits = (model.commit, model.adapter_commit) == (base.commit, base.adapter_commit)
    equal_paths = (entry.model.path, entry.model.subfolder) == (recipe.base_model.path, recipe.base_model.subfolder)
    return equal_commits and equal_paths


def _lock_datasets(recipe: Recipe, commits: _CommitCache) -> tuple[LockedDataset, ...]:
    """Return the datasets of all tasks, each once."""
    datasets: dict[tuple[str, str | None, str | None], LockedDataset] = {}
    for index, task in enumerate(recipe.evaluate.tasks if recipe.evaluate is not None else ()):
        for number, dataset in enumerate(task.dataset.sources):
            key: KeyPath = ("evaluate", "tasks", index, "dataset", *task.dataset.keys_of(number, "path"))
            commit = commits.commit("dataset", dataset.path, dataset.revision, key)
            datasets[(dataset.written_path, dataset.name, dataset.revision)] = LockedDataset(
                path=dataset.written_path, name=dataset.name, revision=dataset.revision, commit=commit
            )
    return tuple(datasets.values())


def check_lock(recipe: Recipe, lock: Lock, file: str = "lock") -> None:
    """Check that a lock belongs to a recipe.

    A lock may have more models than the recipe lists: models that queries found, and new commits of its entries.

    Args:
        recipe: the recipe.
        lock: the lock.
        file: the name of the lock in messages.

    Raises:
        LockError: the lock belongs to another recipe.
    """
    names = tuple(entry.name for entry in recipe.stream())
    locked = tuple(model.name for model in lock.models)
    digest = recipe_digest(recipe)
    if digest == lock.recipe and set(names) <= set(locked):
        return
    if names != locked and not recipe.has_queries:
        message = f"the lock has the stream {', '.join(locked)}; the recipe has {', '.join(names)}"
    else:
        message = f"the lock belongs to another recipe: expected the digest {digest}, found {lock.recipe}"
    raise LockError(Problem(message, LOCK_AGAIN, file))
