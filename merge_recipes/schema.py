"""Keys of a recipe, with the types and meanings of their values. Unknown keys are errors; values are not converted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PrivateAttr, Tag, model_validator
from typing_extensions import Self

from merge_recipes.dataset import DatasetReference
from merge_recipes.errors import InvalidReferenceError
from merge_recipes.kind_defaults import kind_defaults
from merge_recipes.language_task import HARNESS_KIND, LanguageTask
from merge_recipes.publishing import Publish
from merge_recipes.queries import COLLECTION, ENTRY, QUERY, ModelCollection, ModelQuery, kind_of_item
from merge_recipes.reading import Read
from merge_recipes.record import Record, Text
from merge_recipes.references import ModelReference, checkpoint_key
from merge_recipes.schema_types import (
    DType,
    Name,
    Parameters,
    Prompt,
    Reference,
    without_default,
)
from merge_recipes.shuffling import shuffled_places
from merge_recipes.slices import Slice, joined_levels
from merge_recipes.tokenizer_keys import ChatTemplate, TokenizerOptions, TokenizerSource

REVOKED = "-revoked"
"""Ending of the name of a step that takes an entry out of the merge."""


class StreamEntry(Record):
    """One checkpoint of the stream."""

    model: Reference
    """The checkpoint."""
    name: Name = Field(default="", json_schema_extra=without_default)
    """The name of the step; by default the last part of the model's path."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters for this entry only; they override the top-level parameters."""
    revoke: Name | None = None
    """The name of an earlier entry of this model, which this step takes out of the merge."""

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "name" in data:
            return data
        model, revoked = data.get("model"), data.get("revoke")
        if isinstance(revoked, str):
            return {**data, "name": revoked + REVOKED}
        reference = ModelReference.try_parse(model) if isinstance(model, str) else model
        return {**data, "name": reference.short_name} if isinstance(reference, ModelReference) else data


class TaskKeys(Record):
    """Keys of tasks of all kinds."""

    name: Name
    """The name of the task; the task belongs to the stream entry of this name."""
    kind: Text
    """The kind of task, for example zero-shot-image-classification."""
    dataset: DatasetReference
    """The examples."""
    prompts: tuple[Prompt, ...] = Field(default=("a photo of a {}.",), min_length=1)
    """Templates with {} in place of the class name; the text embeddings of several templates are averaged."""
    class_names: tuple[Text, ...] | None = Field(default=None, min_length=1)
    """The names of the classes, in the order of the labels; by default those of the dataset's features."""
    metrics: tuple[Text, ...] = Field(default=("accuracy",), min_length=1)
    """The metrics; the first one fills the accuracy matrix."""
    model: Name | None = None
    """The name of the stream entry that the task belongs to, if the names do not determine it."""
    head: Name | None = None
    """The entry whose own head scores the task, or base for the base model's; by default that of the task's entry."""
    validation: bool = False
    """true: the task only serves the choice of `read`; it belongs to no entry and is in no table of scores."""


class Task(LanguageTask, TaskKeys):
    """A task on which merged models are scored."""

    @model_validator(mode="after")
    def _use_defaults_of_kind(self) -> Self:
        if self.dataset.qrels is not None and self.kind != "text-retrieval":
            cause = f"qrels is a key of the kind text-retrieval, not of {self.kind}"
            raise InvalidReferenceError(cause, "remove the key qrels of the dataset")
        if self.dataset.more and not (self.kind == HARNESS_KIND and isinstance(self.task, str)):
            cause = "more is a key of groups of lm-evaluation-harness"
            raise InvalidReferenceError(cause, "remove the key more of the dataset")
        self.__dict__.update(kind_defaults(self.kind, self.model_fields_set))
        return self


class Evaluate(Record):
    """Scores of the merged model after every step, on the tasks of the entries merged so far."""

    tasks: tuple[Task, ...] = Field(min_length=1)
    """The tasks, in the order of the accuracy matrix."""
    batch_size: int = Field(default=64, ge=1, le=65536)
    """The number of examples in one forward pass."""


class TensorRules(Record):
    """The tensors that are merged; all others keep the base model's values."""

    include: tuple[Text, ...] = ()
    """Patterns of tensor names (* and ? as in file names); tensors that match one are merged. By default all."""
    exclude: tuple[Text, ...] = ()
    """Patterns of tensor names; tensors that match one are not merged, even if included."""


StreamItem = Annotated[
    Annotated[StreamEntry, Tag(ENTRY)]
    | Annotated[ModelQuery, Tag(QUERY)]
    | Annotated[ModelCollection, Tag(COLLECTION)],
    Discriminator(kind_of_item),
]


class Recipe(Record):
    """A stream of checkpoints, and how to merge, score and publish it."""

    merge_method: Text
    """The name of the merge method, for example opcm."""
    base_model: Reference
    """The model that every checkpoint of the stream was fine-tuned from."""
    models: tuple[StreamItem, ...] = Field(min_length=1)
    """The stream: checkpoints that are merged one after another, or queries that find them."""
    slices: tuple[Slice, ...] = Field(default=(), min_length=1)
    """In place of models: runs of layers that are stacked to a new model. Each slice is merged from its sources."""
    stack: Text | None = None
    """The layers that slices cut, by the start of their names; by default those of the language model."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the merge method, for the whole stream."""
    dtype: DType | None = None
    """The dtype to which checkpoints are cast before the arithmetic; by default they are not cast."""
    out_dtype: DType | None = None
    """The dtype of the merged model; by default dtype, or the base model's own if dtype is not set."""
    state_dtype: Literal["float64", "float32"] = "float64"
    """The dtype of the state between two steps: float32 halves upload and disk, and rounds after every step."""
    order: Literal["listed", "shuffled"] = "listed"
    """listed: merge in the order of the list; shuffled: merge in an order drawn from the seed."""
    seed: int | None = Field(default=None, ge=0)
    """The seed of a shuffled order, and of methods that draw random numbers (0 by default)."""
    form: Literal["stream", "joint"] | None = None
    """stream: merge one checkpoint after another; joint: all at once, in one step. By default the method's form."""
    tokenizer_source: TokenizerSource | None = None
    """The vocabulary of the merged model: union, base or a model. By default the base model's files are copied."""
    tokenizer: TokenizerOptions | None = None
    """The tokenizer of the merged model in detail, in place of `tokenizer_source`."""
    chat_template: ChatTemplate | None = None
    """The chat template of the merged model; by default that of its tokenizer."""
    tensors: TensorRules = TensorRules()
    """The tensors that are merged."""
    evaluate: Evaluate | None = None
    """The tasks to score after every step; by default none."""
    read: Read | None = None
    """A choice of the method that reads the merged model out of the state; by default merge_method reads it."""
    publish: Publish | None = None
    """The target; by default the result stays in the work folder."""
    fetch: Literal["cache", "ranges"] = "cache"
    """cache: download whole checkpoints; ranges: download only the merged tensors."""
    on_update: Literal["ignore", "append", "replace", "replay"] = "ignore"
    """The reaction to a new commit of a checkpoint: ignore it, append it as a new step, put it in the place of the old
    commit, or replay the stream."""

    _names_base: bool = PrivateAttr(default=True)
    _layers: int | None = PrivateAttr(default=None)

    _stages: dict[str, Recipe] = PrivateAttr(default_factory=dict)

    def with_stages(self, stages: dict[str, Recipe]) -> Recipe:
        """Return the recipe with the other documents of its file that it needs, by name."""
        changed = self.model_copy()
        changed._stages = dict(stages)
        return changed

    @property
    def stages(self) -> dict[str, Recipe]:
        """The other documents of the file that the recipe needs, by name, in the order of their merges."""
        return self._stages

    def without_base(self) -> Recipe:
        """Return the recipe as one that names no base model: `base_model` is the first model, which lends its files."""
        changed = self.model_copy()
        changed._names_base = False
        return changed

    def with_first_layers(self, layers: int | None) -> Recipe:
        """Return the recipe as one that merges the first layers of its models; None for all layers."""
        changed = self.model_copy()
        changed._layers = layers
        return changed

    @property
    def first_layers(self) -> int | None:
        """The number of layers that the only slice of the recipe has from the first one on; None without a slice."""
        return self._layers

    def of_slice(self, number: int) -> Recipe:
        """Return a slice as a recipe of its own, whose entries are the sources of the slice."""
        piece = self.slices[number]
        entries = [{"model": source.model, "parameters": source.parameters} for source in piece.sources]
        changes = {
            "slices": (),
            "models": tuple(StreamEntry.model_validate(entry) for entry in entries),
            "parameters": joined_levels(piece.parameters, self.parameters),
            "base_model": piece.base_model or self.base_model,
        }
        return self.model_copy(update=changes)

    @property
    def names_base(self) -> bool:
        """True if the recipe names a base model; otherwise `base_model` is the first model, which lends its config."""
        return self._names_base

    @property
    def lists_base(self) -> bool:
        """True if the base model that the recipe names is one of the models too."""
        return self.names_base and any(self.is_base(entry) for entry in self.entries)

    def is_base(self, entry: StreamEntry) -> bool:
        """Return True if an entry is the base model of the recipe."""
        return checkpoint_key(entry.model) == checkpoint_key(self.base_model)

    @property
    def tokenizer_options(self) -> TokenizerOptions | None:
        """The tokenizer that the merged model gets; None for the files of the base model."""
        if self.tokenizer is not None or self.tokenizer_source is None:
            return self.tokenizer
        return TokenizerOptions(source=self.tokenizer_source)

    @property
    def tokenizer_model(self) -> ModelReference | None:
        """The model whose tokenizer the merged model gets, if it is not one of the models of the merge."""
        options = self.tokenizer_options
        if options is None or isinstance(options.source, str):
            return None
        known = (self.base_model, *(entry.model for entry in self.entries))
        return options.source if checkpoint_key(options.source) not in map(checkpoint_key, known) else None

    def within(self, folder: Path) -> Recipe:
        """Return the recipe with absolute local paths; relative ones start in `folder`."""
        models = tuple(
            item.model_copy(update={"model": item.model.within(folder)}) if isinstance(item, StreamEntry) else item
            for item in self.models
        )
        slices = tuple(piece.within(folder) for piece in self.slices)
        changes: dict[str, Any] = {"base_model": self.base_model.within(folder), "models": models, "slices": slices}
        if isinstance(self.tokenizer_source, ModelReference):
            changes["tokenizer_source"] = self.tokenizer_source.within(folder)
        if self.tokenizer is not None:
            changes["tokenizer"] = self.tokenizer.within(folder)
        if self.evaluate is not None:
            tasks = tuple(
                task.model_copy(update={"dataset": task.dataset.within(folder)}) for task in self.evaluate.tasks
            )
            changes["evaluate"] = self.evaluate.model_copy(update={"tasks": tasks})
        return self.model_copy(update=changes)

    @property
    def entries(self) -> tuple[StreamEntry, ...]:
        """The entries that `models` lists, without queries."""
        return tuple(item for item in self.models if isinstance(item, StreamEntry))

    @property
    def scored_tasks(self) -> tuple[Task, ...]:
        """The tasks that merged models are scored on, without those for validation only."""
        return tuple(task for task in self.all_tasks if not task.validation)

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """The tasks of `evaluate`."""
        return () if self.evaluate is None else self.evaluate.tasks

    @property
    def has_queries(self) -> bool:
        """True if `models` has queries or collections."""
        return len(self.entries) < len(self.models)

    def revoked_by(self, entry: StreamEntry) -> StreamEntry:
        """Return the entry that another one takes out of the merge."""
        return next(one for one in self.entries if one.name == entry.revoke)

    def with_stream(self, entries: Iterable[StreamEntry]) -> Recipe:
        """Return the recipe with exactly these entries, in this order."""
        seed = None if self.order == "shuffled" else self.seed
        return self.model_copy(update={"models": tuple(entries), "order": "listed", "seed": seed})

    def stream(self) -> tuple[StreamEntry, ...]:
        """Return the entries that `models` lists, in merge order."""
        entries = self.entries
        if self.order == "shuffled":
            return tuple(entries[place] for place in shuffled_places(len(entries), self.seed))
        return entries
