"""The dataset of a task in a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from merge_recipes.errors import InvalidReferenceError
from merge_recipes.record import Record, Text
from merge_recipes.references import absolute_path, is_local_path, path_problem, revision_problem

TYPE, CLASSES = "<type>", "<classes>"


def _checked_path(path: str, key: str) -> str:
    if "@" in path and not is_local_path(path):
        raise InvalidReferenceError("a dataset's path has no @revision", f"write `{key}: ...` beside the path")
    if (problem := path_problem(path)) is not None:
        raise InvalidReferenceError(problem)
    return path


def _checked_revision(revision: str | None) -> str | None:
    if revision is not None and (problem := revision_problem(revision)) is not None:
        raise InvalidReferenceError(problem)
    return revision


def _kind_of_cast(value: object) -> str:
    return CLASSES if isinstance(value, list | tuple) else TYPE


def _check_distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    again = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if again is not None:
        raise ValueError(f"the class {again!r} is in the list twice")
    return names


ColumnType = Literal[
    "image", "string", "bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"
]
Classes = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_check_distinct)]
# The discriminator keeps the message about a wrong value free of what would also be allowed.
Cast = Annotated[
    Annotated[ColumnType, Tag(TYPE)] | Annotated[Classes, Tag(CLASSES)],
    Discriminator(_kind_of_cast),
]
"""What a column holds: images, values of a type, or classes with these names."""


class MoreData(Record):
    """Another split that the tasks of a group read, of this dataset repo or of another one."""

    path: Text
    """A dataset repo on the Hub (owner/name)."""
    name: Text | None = None
    """The configuration (subset); left out if the tasks of this split read several."""
    split: Text = "test"
    """The split to score."""
    revision: Text | None = None
    """A branch, tag or commit of the dataset; the lock pins its commit."""

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if is_local_path(path):
            raise InvalidReferenceError("expected a dataset repo on the Hub, got a local path")
        return _checked_path(path, "revision")

    @field_validator("revision")
    @classmethod
    def _check_revision(cls, revision: str | None) -> str | None:
        return _checked_revision(revision)


class DatasetReference(Record):
    """The examples of a task."""

    path: Text
    """A dataset repo on the Hub (owner/name), or a local folder that starts with ./, ../, / or ~."""
    name: Text | None = None
    """The configuration (subset) of the dataset; by default the dataset's default."""
    split: Text = "test"
    """The split to score."""
    revision: Text | None = None
    """A branch, tag or commit of the dataset; the lock pins its commit."""
    image: Text = "image"
    """The column with the images, for kinds of task with images."""
    label: Text = "label"
    """The column with the labels; for the kind generation the column with the answers."""
    text: Text | None = None
    """The column with the texts, for kinds of task with texts."""
    sentence1: Text = "sentence1"
    """The column with the first sentences, for the kind sentence-similarity."""
    sentence2: Text = "sentence2"
    """The column with the second sentences, for the kind sentence-similarity."""
    score: Text = "score"
    """The column with the scores of people, for the kind sentence-similarity."""
    query: Text = "query"
    """The column with the queries, for the kind text-retrieval."""
    positive: Text = "positive"
    """The column with a document that belongs to the query, for the kind text-retrieval."""
    corpus: Text | None = None
    """The configuration with all documents, for the kind text-retrieval and data sets in the form of BEIR. Its split
    has the same name. Rows of the task's split are then pairs of a query and a document, with a score."""
    queries: Text = "queries"
    """The configuration with all queries, used with `corpus`. Its split has the same name."""
    qrels: Text | None = None
    """The dataset repo or local folder with the task's split, if the pairs of queries and documents are not in the
    repo of `corpus` and `queries`. `name` is then its configuration."""
    qrels_revision: Text | None = None
    """A branch, tag or commit of `qrels`; the lock pins its commit."""
    more: tuple[MoreData, ...] = ()
    """The other splits that a group of the kind lm-eval reads, of this dataset repo or of others."""
    cast: dict[Text, Cast] = Field(default_factory=dict)
    """What columns hold, by their names: image, a type such as string or int64, or the names of classes in order."""
    max_examples: int | None = Field(default=None, ge=1)
    """The number of examples to score, see `sample`; by default all."""
    sample: Literal["balanced", "first"] = "balanced"
    """balanced: draw max_examples by the seed, equally many of each class; first: take the start of the split."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """The seed of the sample."""

    _written_path: str | None = PrivateAttr(default=None)
    # The key has the written path: a serializer would print it where it is not set, which changes the recipe's digest.
    _qrels_path: str | None = PrivateAttr(default=None)

    @field_serializer("path")
    def _print_path(self, path: str) -> str:
        return self._written_path or path

    def within(self, folder: Path) -> DatasetReference:
        """Return the reference with absolute local paths; relative ones start in `folder`."""
        reference = self.model_copy()
        if self.is_local:
            reference = reference.model_copy(update={"path": absolute_path(self.path, folder)})
            reference._written_path = self.written_path
        if self.qrels is not None and is_local_path(self.qrels):
            reference._qrels_path = absolute_path(self._qrels_path or self.qrels, folder)
        return reference

    @property
    def rows(self) -> DatasetReference:
        """The reference to the repo with the task's split: that of `qrels` if there is one."""
        if self.qrels is None:
            return self
        parts = {"path": self._qrels_path or self.qrels, "revision": self.qrels_revision, "corpus": None, "qrels": None}
        reference = self.model_copy(update={**parts, "qrels_revision": None})
        reference._written_path, reference._qrels_path = self.qrels, None
        return reference

    @property
    def sources(self) -> tuple[DatasetReference, ...]:
        """A reference to everything that the task reads: that of `path`, then those of `qrels` and of `more`."""
        return (self, *(() if self.qrels is None else (self.rows,)), *self._more)

    @property
    def scored(self) -> tuple[DatasetReference, ...]:
        """A reference to each split that is scored."""
        return (self.rows, *self._more)

    @property
    def _more(self) -> Iterator[DatasetReference]:
        for one in self.more:
            reference = self.model_copy(update={**dict(one), "more": ()})
            reference._written_path = None
            yield reference

    def keys_of(self, number: int, key: str) -> tuple[str | int, ...]:
        """Return the keys in the recipe of the path, revision, name or split of a source, by its number from 0."""
        if number and self.qrels is not None:
            return ({"path": "qrels", "revision": "qrels_revision"}.get(key, key),)
        return ("more", number - 1, key) if number else (key,)

    def keys_at(self, place: str | None, key: str) -> tuple[str | int, ...]:
        """Return these keys for the source with a path; those of the first source if none has it."""
        paths = [source.path for source in self.sources]
        return self.keys_of(paths.index(place) if place in paths else 0, key)

    @property
    def written_path(self) -> str:
        """The path in the recipe, also after `path` was made absolute."""
        return self._written_path or self.path

    @field_validator("path", "qrels")
    @classmethod
    def _check_path(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None:
            return None
        return _checked_path(path, "revision" if info.field_name == "path" else "qrels_revision")

    @field_validator("revision", "qrels_revision")
    @classmethod
    def _check_revision(cls, revision: str | None) -> str | None:
        return _checked_revision(revision)

    @model_validator(mode="after")
    def _check_more(self) -> DatasetReference:
        if self.more and self.is_local:
            raise InvalidReferenceError("more needs a dataset repo on the Hub as `path`", "remove the key more")
        revisions = {self.path: self.revision}
        for one in self.more:
            if revisions.setdefault(one.path, one.revision) != one.revision:
                cause = f"more has another revision of {one.path}: {one.revision} and {revisions[one.path]}"
                raise InvalidReferenceError(cause, "write one revision for all splits of a dataset repo")
        return self

    @model_validator(mode="after")
    def _check_local(self) -> DatasetReference:
        if self.is_local and self.revision is not None:
            raise InvalidReferenceError("a local dataset has no revision", "remove the key revision")
        if self.qrels is not None and self.corpus is None:
            cause = "qrels is for data sets in the form of BEIR, and `corpus` is missing"
            raise InvalidReferenceError(cause, "add the configuration with all documents: `corpus: corpus`")
        if self.qrels_revision is not None and (self.qrels is None or is_local_path(self.qrels)):
            cause = "qrels_revision needs `qrels`, a dataset repo on the Hub"
            raise InvalidReferenceError(cause, "remove the key qrels_revision")
        return self

    @property
    def is_local(self) -> bool:
        """True for a folder on this machine."""
        return is_local_path(self.path)
