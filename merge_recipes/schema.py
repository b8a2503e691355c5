"""The keys of a recipe: what each holds, and what it means. Unknown keys are refused, values are not converted."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    Tag,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from merge_recipes.errors import InvalidReferenceError, shown
from merge_recipes.queries import COLLECTION, ENTRY, QUERY, ModelCollection, ModelQuery, kind_of_item
from merge_recipes.record import Record, Text
from merge_recipes.references import ModelReference, absolute_path, check_repo_path, check_revision, is_local_path

MAX_NAME_CHARACTERS = 96
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

_SIZE = re.compile(r"(?P<number>[0-9]{1,6}(?:\.[0-9]{1,6})?) ?(?P<unit>[KMGT]i?B)")
_UNITS = {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)}
_UNITS |= {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}

_REFERENCE_FORM = (
    "A model: owner/name on the Hub, or owner/name/subfolder, with an optional @revision and an optional +adapter (a "
    "LoRA repo, with its own @revision), or a local folder that starts with ./, ../, / or ~; ./ is the folder of the "
    "recipe."
)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "expected text")
    return value


def _reference(value: object) -> ModelReference:
    return value if isinstance(value, ModelReference) else ModelReference.parse(_text(value))


def _prompt(template: str) -> str:
    rest = template.replace("{}", "")
    if "{}" not in template or "{" in rest or "}" in rest:
        raise ValueError(f"the template {shown(template)} needs {{}} where the class goes, and no other braces")
    return template


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _nothing_is_empty(value: object) -> object:
    return {} if value is None else value


Reference = Annotated[
    ModelReference,
    PlainValidator(_reference),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "minLength": 1, "description": _REFERENCE_FORM}),
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=MAX_NAME_CHARACTERS)]
Prompt = Annotated[Text, AfterValidator(_prompt)]
DType = Literal["float32", "float16", "bfloat16", "float64"]

_NUMBER = {"type": ["number", "boolean", "string"]}
_PARAMETERS_SCHEMA: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {
        "anyOf": [
            _NUMBER,
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "properties": {
                        "value": {**_NUMBER, "description": "The value for the tensors that the filter selects."},
                        "filter": {
                            "type": "string",
                            "minLength": 1,
                            "description": "Part of a tensor's name; * or no filter selects every tensor.",
                        },
                    },
                    "required": ["value"],
                    "additionalProperties": False,
                },
            },
        ]
    },
}
Parameters = Annotated[dict[str, JsonValue], BeforeValidator(_nothing_is_empty), WithJsonSchema(_PARAMETERS_SCHEMA)]


class StreamEntry(Record):
    """One checkpoint of the stream."""

    model: Reference
    """The checkpoint."""
    name: Name = Field(default="", json_schema_extra=_without_default)
    """What the step is called; the last part of the model's path if not given."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters for this entry only; they go before the top-level ones."""

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "name" in data:
            return data
        try:
            return {**data, "name": _reference(data.get("model")).short_name}
        except (InvalidReferenceError, PydanticCustomError):
            return data


class DatasetReference(Record):
    """The examples of a task."""

    path: Text
    """A dataset repo on the Hub (owner/name), or a local folder that starts with ./, ../, / or ~."""
    name: Text | None = None
    """The configuration (subset) of the dataset; its default one if not given."""
    split: Text = "test"
    """The split that is scored."""
    revision: Text | None = None
    """A branch, tag or commit of the dataset; the lock holds the commit it stands for."""
    image: Text = "image"
    """The column with the images, for kinds of task that have images."""
    label: Text = "label"
    """The column with the labels."""
    text: Text | None = None
    """The column with the texts, for kinds of task that have texts."""
    max_examples: int | None = Field(default=None, ge=1)
    """Score at most this many examples, the first ones of the split; all if not given."""

    _written_path: str | None = PrivateAttr(default=None)

    @field_serializer("path")
    def _print_path(self, path: str) -> str:
        return self._written_path or path

    def within(self, folder: Path) -> DatasetReference:
        """Return the reference with a local path made absolute, a relative one being relative to `folder`."""
        if not self.is_local:
            return self
        reference = self.model_copy(update={"path": absolute_path(self.path, folder)})
        reference._written_path = self.written_path
        return reference

    @property
    def written_path(self) -> str:
        """The path as the recipe has it, where `path` was made absolute."""
        return self._written_path or self.path

    @field_validator("path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if "@" in path and not is_local_path(path):
            raise InvalidReferenceError("a dataset's path has no @revision", "write the revision under its own key")
        check_repo_path(path)
        return path

    @field_validator("revision")
    @classmethod
    def _check_revision(cls, revision: str | None) -> str | None:
        if revision is not None:
            check_revision(revision)
        return revision

    @model_validator(mode="after")
    def _check_local(self) -> DatasetReference:
        if self.is_local and self.revision is not None:
            raise InvalidReferenceError("a local dataset has no revision", "leave out the key revision")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the dataset is a folder on this machine."""
        return is_local_path(self.path)


class Task(Record):
    """What the merged model is scored on after a step."""

    name: Name
    """What the task is called; a task belongs to the stream entry of the same name."""
    kind: Text
    """The kind of task, for example zero-shot-image-classification."""
    dataset: DatasetReference
    """The examples."""
    prompts: tuple[Prompt, ...] = Field(default=("a photo of a {}.",), min_length=1)
    """Templates in which {} stands for the name of the class; with several, their text embeddings are averaged."""
    class_names: tuple[Text, ...] | None = Field(default=None, min_length=1)
    """The names of the classes, in the order of the labels; those of the dataset's features if not given."""
    metrics: tuple[Text, ...] = Field(default=("accuracy",), min_length=1)
    """The metrics; the first one makes the accuracy matrix."""
    model: Name | None = None
    """The name of the stream entry that the task belongs to, where it cannot be told from the names."""


class Evaluate(Record):
    """Scores of the merged model after every step, on the tasks of the entries merged so far."""

    tasks: tuple[Task, ...] = Field(min_length=1)
    """The tasks, in the order in which they stand in the accuracy matrix."""
    batch_size: int = Field(default=64, ge=1, le=65536)
    """Examples in one forward pass."""


class Publish(Record):
    """Where the merged model goes on the Hub."""

    repo: Text
    """The model repo to publish to: owner/name. It is made if it does not exist."""
    steps: Literal["every", "last"] = "every"
    """every: each step becomes a commit and a tag (step-01, step-02, ...); last: only the last one."""
    model: Literal["full", "tower"] = "full"
    """full: the merged tower inside the whole base model; tower: the merged tensors' own model alone."""
    state: Literal["last", "every", "none"] = "last"
    """Which published steps carry the accumulated delta, which extending and verifying the stream needs."""
    private: bool = False
    """Whether the repo is private, where this run makes it."""
    license: Text | None = None
    """The licence named by the model card; that of the base model's card if not given."""
    tags: tuple[Text, ...] = ()
    """Tags added to the model card's own."""
    max_shard_size: Text = "5GB"
    """The size of one weight file: a number with KB, MB, GB or TB (powers of 1000), or KiB, MiB, GiB or TiB."""

    @field_validator("repo")
    @classmethod
    def _check_repo(cls, repo: str) -> str:
        check_repo_path(repo)
        if is_local_path(repo) or "/" not in repo:
            raise InvalidReferenceError(f"{repo!r} is not a repo to publish to: expected owner/name")
        return repo

    @field_validator("max_shard_size")
    @classmethod
    def _check_max_shard_size(cls, size: str) -> str:
        if parse_size(size) < 1:
            raise ValueError("the size of a shard is at least one byte")
        return size

    @property
    def max_shard_bytes(self) -> int:
        """The size of one weight file in bytes."""
        return parse_size(self.max_shard_size)


def parse_size(size: str) -> int:
    """Return a size such as `5GB` in bytes.

    Raises:
        ValueError: if it is not a number with a unit.
    """
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f"{size[:40]!r} is not a size: expected a number and a unit, for example 5GB or 512MiB")
    return int(float(match["number"]) * _UNITS[match["unit"]])


class TensorRules(Record):
    """Which tensors are merged; the others keep the base model's values."""

    include: tuple[Text, ...] = ()
    """Patterns (* and ? as in file names) on tensor names; only tensors that match one are merged. Empty: all."""
    exclude: tuple[Text, ...] = ()
    """Patterns on tensor names; tensors that match one are not merged, even if included."""


StreamItem = Annotated[
    Annotated[StreamEntry, Tag(ENTRY)]
    | Annotated[ModelQuery, Tag(QUERY)]
    | Annotated[ModelCollection, Tag(COLLECTION)],
    Discriminator(kind_of_item),
]


class Recipe(Record):
    """A stream of checkpoints to fold into one merged model: how to merge, score and publish it."""

    merge_method: Text
    """The name of the merge method, for example opcm."""
    base_model: Reference
    """The model that every checkpoint of the stream was fine-tuned from."""
    models: tuple[StreamItem, ...] = Field(min_length=1)
    """The stream: checkpoints that are merged one after another, or queries that list them."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the merge method, for the whole stream."""
    dtype: DType | None = None
    """The dtype that the checkpoints are cast to before the arithmetic; none if not given."""
    out_dtype: DType | None = None
    """The dtype that is written; dtype if not given, and the base model's own if neither is."""
    order: Literal["listed", "shuffled"] = "listed"
    """listed: as written; shuffled: in an order drawn from the seed."""
    seed: int | None = Field(default=None, ge=0)
    """The seed of a shuffled order."""
    tensors: TensorRules = TensorRules()
    """Which tensors are merged."""
    evaluate: Evaluate | None = None
    """The scores to take after every step; none if not given."""
    publish: Publish | None = None
    """Where to publish; if not given, the result stays in the work folder."""
    fetch: Literal["cache", "ranges"] = "cache"
    """cache: checkpoints are downloaded whole; ranges: only what is merged of them is fetched."""
    on_update: Literal["ignore", "append", "replay"] = "ignore"
    """When a checkpoint's repo has a new commit: ignore it, append it as a new step, or replay the stream."""

    def within(self, folder: Path) -> Recipe:
        """Return the recipe with local paths made absolute, relative ones being relative to `folder`."""
        models = tuple(
            item.model_copy(update={"model": item.model.within(folder)}) if isinstance(item, StreamEntry) else item
            for item in self.models
        )
        changes: dict[str, Any] = {"base_model": self.base_model.within(folder), "models": models}
        if self.evaluate is not None:
            tasks = tuple(
                task.model_copy(update={"dataset": task.dataset.within(folder)}) for task in self.evaluate.tasks
            )
            changes["evaluate"] = self.evaluate.model_copy(update={"tasks": tasks})
        return self.model_copy(update=changes)

    @property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The checkpoints that `models` names itself, as listed."""
        return tuple(item for item in self.models if isinstance(item, StreamEntry))

    @property
    def has_queries(self) -> bool:
        """Whether the Hub has to be asked which checkpoints there are."""
        return len(self.entries) < len(self.models)

    def with_stream(self, entries: Iterable[StreamEntry]) -> Recipe:
        """Return the recipe with just these entries, in this order."""
        return self.model_copy(update={"models": tuple(entries), "order": "listed", "seed": None})

    def stream(self) -> tuple[StreamEntry, ...]:
        """Return the entries that `models` names itself, in the order in which they are merged."""
        entries = list(self.entries)
        if self.order == "shuffled":
            # Only random() is promised to give the same numbers in every Python version, so no shuffle().
            draw = random.Random(self.seed).random  # noqa: S311 - an order, not a secret
            for last in range(len(entries) - 1, 0, -1):
                chosen = int(draw() * (last + 1))
                entries[last], entries[chosen] = entries[chosen], entries[last]
        return tuple(entries)
