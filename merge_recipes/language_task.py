"""Keys of tasks of language models, for the kinds lm-eval and generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from merge_recipes.record import Record, Text

HARNESS_KIND = "lm-eval"
GENERATION_KIND = "generation"
LANGUAGE_KINDS = (HARNESS_KIND, GENERATION_KIND)
"""The kinds of task that generate or score texts with an engine."""

DEFINITION_SUFFIXES = (".yaml", ".yml")
"""Endings of a file that defines a task."""

Definition = dict[str, JsonValue]
NAME, DEFINITION = "<name>", "<definition>"


def _kind_of_task(value: object) -> str:
    return DEFINITION if isinstance(value, dict) else NAME


# The discriminator keeps the message about a wrong value free of what would also be allowed.
NameOrDefinition = Annotated[
    Annotated[Text, Tag(NAME)] | Annotated[Definition, Tag(DEFINITION)], Discriminator(_kind_of_task)
]


class LanguageTask(Record):
    """Keys of a task that only the kinds lm-eval and generation use."""

    task: NameOrDefinition | None = None
    """lm-eval: the name of a task or group of lm-evaluation-harness, a YAML file beside the recipe (./task.yaml), or
    the keys of such a file."""
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    """lm-eval: the number of examples in the prompt; by default the task's own."""
    limit: int | None = Field(default=None, ge=1)
    """lm-eval: the number of examples to score, from the start of the split; of a group, for each of its tasks."""
    seed: int = Field(default=1234, ge=0, le=2**32 - 1)
    """lm-eval: the seed of the examples in the prompt, and of tasks that sample."""
    prompt: Text | None = None
    """generation: the prompt, with columns in braces: {question}. By default the text column alone."""
    max_new_tokens: int = Field(default=64, ge=1, le=8192)
    """generation: the largest number of tokens of an answer."""
    stop: tuple[Text, ...] = Field(default=(), max_length=16)
    """generation: texts at which an answer ends; they are not part of it."""
    normalize: Literal["none", "space", "words"] = "space"
    """generation: how exact_match compares. none: as written; space: runs of white space count as one space; words:
    without case, punctuation and English articles too."""
    chat_template: bool = False
    """lm-eval and generation: write prompts with the chat template of the base model's tokenizer."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """lm-eval and generation: the library that runs the model."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """lm-eval and generation: the number of examples in one forward pass; by default that of `evaluate`."""


LANGUAGE_KEYS = tuple(LanguageTask.model_fields)


def with_dataset(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a task of the kind lm-eval with the dataset that its definition names, and with its limit.

    The dataset in the recipe has precedence. Of a task that is a name, only the recipe says the dataset.
    """
    found, definition = dict(data), data.get("task")
    if "dataset" not in data and isinstance(definition, dict) and isinstance(definition.get("dataset_path"), str):
        splits = (definition.get(f"{name}_split") for name in ("test", "validation", "training"))
        split = next((one for one in splits if isinstance(one, str)), None)
        keys = {"path": definition["dataset_path"], "name": definition.get("dataset_name"), "split": split}
        found["dataset"] = {key: value for key, value in keys.items() if value is not None}
    limit = data.get("limit")
    valid = isinstance(limit, int) and not isinstance(limit, bool) and limit > 0
    if valid and isinstance(found.get("dataset"), dict):
        found["dataset"] = {**found["dataset"], "max_examples": limit, "sample": "first"}
    return found
