"""Lock files: the pinned commit of every model and dataset of a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from merge_recipes.errors import LockError, Problem, RecipeError
from merge_recipes.read_yaml import read_document
from merge_recipes.record import Record, Text
from merge_recipes.references import COMMIT_PATTERN, DIGEST_PATTERN
from merge_recipes.schema import Reference
from merge_recipes.validate import validate

_HEADER = "# What the recipe's references stood for when it was locked. Written by hubmerge; not to be edited.\n"

Commit = Annotated[str, Field(pattern=f"^({COMMIT_PATTERN}|{DIGEST_PATTERN})$")]
Digest = Annotated[str, Field(pattern=f"^{DIGEST_PATTERN}$")]


class LockedModel(Record):
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


class LockedDataset(Record):
    """A dataset at one commit."""

    path: Text
    """The path as the recipe has it."""
    name: Text | None = None
    """The configuration (subset)."""
    revision: Text | None = None
    """The revision as the recipe has it."""
    commit: Commit
    """40 hex digits, or `sha256:` and the digest of a local folder's content."""


class Lock(Record):
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


def _lines(item: Record) -> list[str]:
    values = item.model_dump(mode="json", exclude_none=True)
    return [f"{key}: {_quoted(value)}" for key, value in values.items()]


def _quoted(text: str) -> str:
    # Always quoted, because a commit such as 12345e67... would otherwise be read as a number.
    return json.dumps(text, ensure_ascii=False)
