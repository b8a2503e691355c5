"""A recipe to a lock: every model and every dataset at one commit, before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from merge_recipes.digests import recipe_digest
from merge_recipes.errors import KeyPath, LockError, Problem, RecipeError, shown
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.lock import Lock, LockedDataset, LockedModel
from merge_recipes.references import COMMIT_PATTERN, DIGEST_PATTERN, ModelReference
from merge_recipes.schema import Recipe, StreamEntry

_COMMIT = re.compile(f"{COMMIT_PATTERN}|{DIGEST_PATTERN}")


class Resolver(Protocol):
    """Finds out which commit a revision stands for."""

    def resolve(self, kind: Literal["model", "dataset"], path: str, revision: str | None) -> str:
        """Return the commit (40 hex digits), or `sha256:` and 64 hex digits of the content of a local folder.

        `path` is `owner/name`, or an absolute local path. No revision means the repo's default branch.
        """


class _Locking:
    """Asks the resolver once for each repo and revision."""

    def __init__(self, loaded: LoadedRecipe, resolver: Resolver) -> None:
        self._loaded = loaded
        self._resolver = resolver
        self._commits: dict[tuple[str, str, str | None], str] = {}

    def commit(self, kind: Literal["model", "dataset"], path: str, revision: str | None, key: KeyPath) -> str:
        asked = (kind, path, revision)
        if asked not in self._commits:
            commit: Any = self._resolver.resolve(kind, path, revision)
            if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
                message = f"{path} resolved to {shown(commit)}: expected a commit of 40 hex digits"
                raise LockError(self._loaded.document.problem(key, message))
            self._commits[asked] = commit
        return self._commits[asked]

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
    settled: Mapping[str, LockedModel] | None = None,
) -> Lock:
    """Resolve the base model, every entry of the stream with its adapter, and every dataset to a commit.

    `entries` is the stream in merge order where it is more than the recipe lists: what its queries found, and new
    commits of entries already merged. Of those named in `settled` the commits are known already.

    Raises:
        RecipeError: if an entry turns out to be the base model at the same commit.
        LockError: if the resolver returns something that is no commit.
    """
    recipe = loaded.recipe
    locking = _Locking(loaded, resolver)
    base = locking.model(recipe.base_model.short_name, recipe.base_model, ("base_model",))
    places = {item.name: index for index, item in enumerate(recipe.models) if isinstance(item, StreamEntry)}
    models: list[LockedModel] = []
    for entry in recipe.stream() if entries is None else entries:
        key: KeyPath = ("models", places[entry.name], "model") if entry.name in places else ("models",)
        known = (settled or {}).get(entry.name)
        models.append(known if known is not None else locking.model(entry.name, entry.model, key))
        same_commits = (models[-1].commit, models[-1].adapter_commit) == (base.commit, base.adapter_commit)
        same_place = (entry.model.path, entry.model.subfolder) == (recipe.base_model.path, recipe.base_model.subfolder)
        if same_commits and same_place:
            raise RecipeError(loaded.document.problem(key, f"this is the base model, at the same commit {base.commit}"))
    datasets: dict[tuple[str, str | None, str | None], LockedDataset] = {}
    for index, task in enumerate(recipe.evaluate.tasks if recipe.evaluate is not None else ()):
        dataset = task.dataset
        commit = locking.commit(
            "dataset", dataset.path, dataset.revision, ("evaluate", "tasks", index, "dataset", "path")
        )
        datasets[(dataset.written_path, dataset.name, dataset.revision)] = LockedDataset(
            path=dataset.written_path, name=dataset.name, revision=dataset.revision, commit=commit
        )
    return Lock(recipe=recipe_digest(recipe), base_model=base, models=tuple(models), datasets=tuple(datasets.values()))


def check_lock(recipe: Recipe, lock: Lock, file: str = "hubmerge.lock.yaml") -> None:
    """Check that a lock was made from this recipe.

    A lock may hold more models than the recipe lists: those that its queries found, or new commits of its entries.

    Raises:
        LockError: naming what differs.
    """
    names = tuple(entry.name for entry in recipe.stream())
    locked = tuple(model.name for model in lock.models)
    digest = recipe_digest(recipe)
    if digest == lock.recipe and set(names) <= set(locked):
        return
    if names != locked and not recipe.has_queries:
        message = f"the lock has the stream {', '.join(locked)}; the recipe has {', '.join(names)}"
    else:
        message = f"the lock was made from another recipe: it names {lock.recipe}, this recipe is {digest}"
    raise LockError(Problem(message, "lock the recipe again", file))
