"""Lock files: the pinned commit of every model and dataset of a recipe."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from merge_recipes.dataset import DatasetReference
from merge_recipes.errors import LockError, Problem, RecipeError
from merge_recipes.read_yaml import read_document
from merge_recipes.record import Record, Text
from merge_recipes.references import COMMIT_PATTERN, DIGEST_PATTERN
from merge_recipes.schema_types import Reference
from merge_recipes.validate import validate

LOCK_AGAIN = "run `hubmerge lock` with the recipe again"
"""The hint for a lock that does not match its recipe."""

_HEADER = "# The pinned commits of the recipe's references. Written by hubmerge; do not edit.\n"

Commit = Annotated[str, Field(pattern=f"^({COMMIT_PATTERN}|{DIGEST_PATTERN})$")]
Digest = Annotated[str, Field(pattern=f"^{DIGEST_PATTERN}$")]


LockT = TypeVar("LockT", "Lock", "LockedStage")


class LockedModel(Record):
    """A model at one commit."""

    name: Text
    """The name of the stream entry; for the base model, the last part of its path."""
    reference: Reference
    """The reference. It is written with the local path of the recipe, even after that was made absolute."""
    commit: Commit
    """The commit: 40 hex digits, or `sha256:` and the digest of a local folder's content."""
    adapter_commit: Commit | None = None
    """The commit of the adapter, if there is one."""

    @property
    def label(self) -> str:
        """The model in messages: `owner/name@commit`, or the path of a local folder."""
        if self.reference.is_local:
            return str(self.reference)
        return "/".join(filter(None, (self.reference.path, self.reference.subfolder))) + f"@{self.commit}"


class LockedDataset(Record):
    """A dataset at one commit."""

    path: Text
    """The path in the recipe."""
    name: Text | None = None
    """The configuration (subset)."""
    revision: Text | None = None
    """The revision in the recipe."""
    commit: Commit
    """The commit: 40 hex digits, or `sha256:` and the digest of a local folder's content."""


class LockedStage(Record):
    """A document of a recipe's file whose merged model others use, with the commits of its models."""

    name: Text
    """The name of the document."""
    digest: Digest
    """The digest of everything that the merged model depends on. Other documents have it as the model's commit."""
    base_model: LockedModel
    """The base model."""
    tokenizer: LockedModel | None = None
    """The model that lends the tokenizer, if it is another one."""
    models: tuple[LockedModel, ...] = Field(min_length=1)
    """The models in merge order."""

    def pinned(self, *, models: bool = True) -> tuple[LockedModel, ...]:
        """Return base model, tokenizer and, unless `models` is false, the models."""
        tokenizer = () if self.tokenizer is None else (self.tokenizer,)
        return (self.base_model, *tokenizer, *(self.models if models else ()))


class Lock(Record):
    """The pinned commits of a recipe."""

    version: Literal[1, 2] = 1
    """The version of the format: 2 if there are stages."""
    recipe: Digest
    """The digest of the recipe's content."""
    base_model: LockedModel
    """The base model."""
    tokenizer: LockedModel | None = None
    """The model whose tokenizer the merged model gets, if it is not one of the models."""
    models: tuple[LockedModel, ...] = Field(min_length=1)
    """The stream in merge order."""
    datasets: tuple[LockedDataset, ...] = ()
    """The datasets of the tasks, in their order, each once."""
    stages: tuple[LockedStage, ...] = ()
    """The documents that are merged before, in this order."""
    state_dtype: Literal["float64", "float32"] = "float64"
    """The dtype of the states, written if it is not float64."""
    versions: dict[str, Text] = Field(default_factory=dict)
    """The versions of hubmerge and its libraries, by package; only in a lock beside a recipe."""

    def to_yaml(self) -> str:
        """Return the lock as YAML. Equal locks give equal text."""
        lines = [f"version: {self.version}", f"recipe: {_quoted(self.recipe)}", "base_model:"]
        lines += [f"  {line}" for line in _lines(self.base_model)]
        if self.tokenizer is not None:
            lines += ["tokenizer:", *(f"  {line}" for line in _lines(self.tokenizer))]
        if self.state_dtype != "float64":
            lines.insert(2, f"state_dtype: {_quoted(self.state_dtype)}")
        lists: list[tuple[str, tuple[Record, ...]]] = [("models", self.models), ("datasets", self.datasets)]
        for key, items in [*lists, *([("stages", self.stages)] if self.stages else [])]:
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
    def from_yaml(cls, text: str, file: str = "lock") -> Lock:
        """Read a lock. Relative local paths stay relative; see `within`.

        Args:
            text: the YAML text.
            file: the name of the lock in messages.

        Raises:
            LockError: the text is not a lock; the error lists all problems.
        """
        try:
            document = read_document(text, file)
        except RecipeError as error:
            raise LockError(error.problems) from None
        lock, problems = validate(cls, document)
        problems += document.problems
        if lock is not None and (lock.version == 2) != bool(lock.stages):
            problems.append(document.problem(("version",), "expected 2 for a lock with stages, 1 for one without"))
        if problems or lock is None:
            raise LockError(problems)
        return lock

    def within(self, folder: Path) -> Lock:
        """Return the lock with absolute local paths; relative ones start in `folder`."""

        def with_absolute_path(model: LockedModel) -> LockedModel:
            return model.model_copy(update={"reference": model.reference.within(folder)})

        def with_absolute_paths(one: LockT) -> LockT:
            models = tuple(with_absolute_path(model) for model in one.models)
            tokenizer = None if one.tokenizer is None else with_absolute_path(one.tokenizer)
            changes = {"base_model": with_absolute_path(one.base_model), "models": models, "tokenizer": tokenizer}
            return one.model_copy(update=changes)

        stages = tuple(with_absolute_paths(stage) for stage in self.stages)
        return with_absolute_paths(self).model_copy(update={"stages": stages})

    def of_stage(self, name: str, recipe: str) -> Lock:
        """Return the lock of a stage.

        Args:
            name: the name of the stage.
            recipe: the digest of its recipe.

        Raises:
            LockError: the lock does not have the stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return Lock(recipe=recipe, base_model=stage.base_model, tokenizer=stage.tokenizer, models=stage.models)
        raise LockError(Problem(f"the lock has no stage {name}", LOCK_AGAIN))

    def dataset_commit(self, path: str, name: str | None, revision: str | None) -> str:
        """Return the commit of a dataset.

        Args:
            path: the path in the recipe.
            name: the configuration (subset).
            revision: the revision in the recipe.

        Raises:
            LockError: the lock does not have the dataset.
        """
        for dataset in self.datasets:
            if (dataset.path, dataset.name, dataset.revision) == (path, name, revision):
                return dataset.commit
        raise LockError(Problem(f"the lock has no dataset {path}", LOCK_AGAIN))

    def commits_of(self, dataset: DatasetReference) -> tuple[str, ...]:
        """Return the commits of all repos that a task reads, in the order of `dataset.sources`.

        Raises:
            LockError: the lock does not have one of them.
        """
        return tuple(self.dataset_commit(one.written_path, one.name, one.revision) for one in dataset.sources)


@lru_cache(4096)
def _lines(item: Record) -> tuple[str, ...]:
    values = item.model_dump(mode="json", exclude_none=True)
    return tuple(f"{key}: {_quoted(value)}" for key, value in values.items())


def _quoted(value: object) -> str:
    # Without quotes a commit such as 12345e67... would be read as a number. JSON of mappings and lists is YAML too.
    return json.dumps(value, ensure_ascii=False)
