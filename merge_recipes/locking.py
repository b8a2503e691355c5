"""A recipe to a lock: every model and every dataset at one commit, before anything is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field

from merge_recipes.digests import recipe_digest
from merge_recipes.errors import KeyPath, LockError, Problem, RecipeError, shown
from merge_recipes.parts import Part, Text
from merge_recipes.reading import read_document
from merge_recipes.references import COMMIT_PATTERN, DIGEST_PATTERN, ModelReference
from merge_recipes.schema import Recipe, Reference, StreamEntry
from merge_recipes.validating import validate

if TYPE_CHECKING:
    from merge_recipes.loading import LoadedRecipe

_COMMIT = re.compile(f"{COMMIT_PATTERN}|{DIGEST_PATTERN}")
_HEADER = "# What the recipe's references stood for when it was locked. Written by hubmerge; not to be edited.\n"

Commit = Annotated[str, Field(pattern=f"^({COMMIT_PATTERN}|{DIGEST_PATTERN})$")]
Digest = Annotated[str, Field(pattern=f"^{DIGEST_PATTERN}$")]


class Resolver(Protocol):
    """Finds out which commit a revision stands for."""

    def resolve(self, kind: Literal["model", "dataset"], path: str, revision: str | None) -> str:
        """Return the commit (40 hex digits), or `sha256:` and 64 hex digits of the content of a local folder.

        `path` is `owner/name`, or an absolute local path. No revision means the repo's default branch.
        """


class LockedModel(Part):
    """A model at one commit."""

    name: Text
    """The name of the stream entry; of the base model the last part of its path."""
    reference: Reference
    """The reference; it is printed as the recipe has it, also where a local path has been made absolute."""
    commit: Commit
    """40 hex digits, or `sha256:` and the digest of a local folder's content."""
    adapter_commit: Commit | None = None
    """The commit of the adapter, where the reference has one."""

    @property
    def label(self) -> str:
        """The model as messages name it: `owner/name@commit`, or the path of a local folder."""
        if self.reference.is_local:
            return str(self.reference)
        return "/".join(filter(None, (self.reference.path, self.reference.subfolder))) + f"@{self.commit}"


class LockedDataset(Part):
    """A dataset at one commit."""

    path: Text
    """The path as the recipe has it."""
    name: Text | None = None
    """The configuration (subset)."""
    revision: Text | None = None
    """The revision as the recipe has it."""
    commit: Commit
    """40 hex digits, or `sha256:` and the digest of a local folder's content."""


class Lock(Part):
    """The commits that a recipe stands for. `models` is in merge order, `datasets` in the order of the tasks."""

    version: Literal[1] = 1
    """The version of this format."""
    recipe: Digest
    """The digest of the recipe's content."""
    base_model: LockedModel
    """The base model."""
    models: tuple[LockedModel, ...] = Field(min_length=1)
    """The stream in merge order."""
    datasets: tuple[LockedDataset, ...] = ()
    """Every dataset once."""
    versions: dict[str, Text] = Field(default_factory=dict)
    """The tools that a lock beside a recipe was made with: package -> version."""

    def to_yaml(self) -> str:
        """Return the lock as YAML: equal locks give equal text."""
        lines = [f"version: {self.version}", f"recipe: {_quoted(self.recipe)}", "base_model:"]
        lines += [f"  {line}" for line in _lines(self.base_model)]
        for key, items in (("models", self.models), ("datasets", self.datasets)):
            lines.append(f"{key}:" if items else f"{key}: []")
            for item in items:
                first, *rest = _lines(item)
                lines += [f"  - {first}", *(f"    {line}" for line in rest)]
        if self.versions:
            lines += [
                "versions:",
                *(f"  {_quoted(tool)}: {_quoted(self.versions[tool])}" for tool in sorted(self.versions)),
            ]
        return _HEADER + "\n".join(lines) + "\n"

    @classmethod
    def from_yaml(cls, text: str, file: str = "hubmerge.lock.yaml") -> Lock:
        """Read a lock; `file` names it in messages. Relative local paths stay relative: see `within`.

        Raises:
            LockError: with every problem of the text.
        """
        try:
            document = read_document(text, file)
        except RecipeError as error:
            raise LockError(error.problems) from None
        lock, problems = validate(cls, document)
        problems += document.problems
        if problems or lock is None:
            raise LockError(problems)
        return lock

    def within(self, folder: Path) -> Lock:
        """Return the lock with local paths made absolute, relative ones being relative to `folder`."""

        def settled(model: LockedModel) -> LockedModel:
            return model.model_copy(update={"reference": model.reference.within(folder)})

        models = tuple(settled(model) for model in self.models)
        return self.model_copy(update={"base_model": settled(self.base_model), "models": models})

    def dataset_commit(self, path: str, name: str | None, revision: str | None) -> str:
        """Return the commit of a dataset, `path` being as the recipe has it.

        Raises:
            LockError: if the lock does not hold it.
        """
        for dataset in self.datasets:
            if (dataset.path, dataset.name, dataset.revision) == (path, name, revision):
                return dataset.commit
        raise LockError(Problem(f"the lock does not hold the dataset {path}", "lock the recipe again"))


def _lines(item: Part) -> list[str]:
    values = item.model_dump(mode="json", exclude_none=True)
    return [f"{key}: {_quoted(value)}" for key, value in values.items()]


def _quoted(text: str) -> str:
    # Always quoted, because a commit such as 12345e67... would otherwise be read as a number.
    return json.dumps(text, ensure_ascii=False)


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
