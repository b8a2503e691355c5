"""Definitions of tasks of lm-evaluation-harness that a recipe contains: which keys they may have.

A recipe may be somebody else's, so nothing in it may run code: keys that name functions, classes, scripts or other
files are refused, and so are options of the generation that load code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from hubmerge.errors import EvaluationError
from merge_recipes import Task
from merge_recipes.errors import did_you_mean
from merge_recipes.language_task import Definition

Key = tuple[str | int, ...]
Found = Iterator[tuple[Key, EvaluationError]]

OUTPUT_TYPES = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")
_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix")
_DELIMITERS = ("target_delimiter", "fewshot_delimiter")
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
_PLAIN = (
    *("task", "task_alias", "tag", "description", "metadata", "num_fewshot", "repeats", "output_type"),
    *("metric_list", "filter_list", "generation_kwargs", "fewshot_config", "dataset_path", "dataset_name"),
    *("should_decontaminate", "doc_to_decontamination_query"),
)
_ALLOWED = frozenset((*_PLAIN, *_TEMPLATES, *_DELIMITERS, *_SPLITS))
_CODE = frozenset(
    ("class", "custom_dataset", "process_docs", "process_results", "doc_to_image", "doc_to_audio", "unsafe_code")
)
_OTHER_FILES = frozenset({"include", "use_prompt"})
_GENERATION = frozenset(
    ("until", "max_gen_toks", "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty")
)
_FEWSHOT = frozenset((*_TEMPLATES, *_DELIMITERS, "sampler", "split", "samples", "fewshot_indices"))
_FILTERS = frozenset(
    ("regex", "regex_pos", "remove_whitespace", "multi_choice_regex", "take_first", "take_first_k", "majority_vote")
) | {"lowercase", "uppercase", "map", "format_span"}
_SAMPLERS = frozenset({"default", "first_n"})
MAX_REPEATS = 64
MAX_TOKENS = 8192


def check_definition(task: Task, definition: Definition, metrics: Collection[str]) -> Found:
    """Yield the mistakes of a definition in a recipe, each with its key path from the task on.

    Args:
        task: the task.
        definition: its definition.
        metrics: the names of the harness's metrics.
    """

    def error(key: Key, message: str, hint: str | None = None) -> tuple[Key, EvaluationError]:
        return ("task", *key), EvaluationError(f"task {task.name}: {message}", hint=hint)

    for key in definition:
        if key in _CODE:
            hint = "write templates in its place, or install the functions as a kind of task of a plug-in"
            yield error((key,), f"{key} needs code, and a recipe cannot bring code to the machines it runs on", hint)
        elif key in _OTHER_FILES:
            yield error((key,), f"{key} names another file", "write the keys of that file here")
        elif key == "group" or (key == "task" and isinstance(definition[key], list)):
            yield error((key,), "a group cannot be defined here", "write one task for each of its tasks")
        elif key == "dataset_kwargs":
            hint = "name a dataset whose files need no options, and remove the key"
            yield error((key,), "options for loading a dataset are not supported: only its commit is pinned", hint)
        elif key not in _ALLOWED:
            yield error((key,), f"unknown key of lm-evaluation-harness {key!r}{did_you_mean(key, _ALLOWED)}")
    for place, message in _value_problems(definition, metrics):
        yield error(place, message)
    yield from _dataset_problems(task, definition)


def _value_problems(definition: Definition, metrics: Collection[str]) -> Iterator[tuple[Key, str]]:
    output = definition.get("output_type", "generate_until")
    if output not in OUTPUT_TYPES:
        yield ("output_type",), f"unknown output_type {output!r}; expected one of {', '.join(OUTPUT_TYPES)}"
    needed = {"multiple_choice": _TEMPLATES[:3], "loglikelihood_rolling": _TEMPLATES[1:2]}
    for key in needed.get(str(output), _TEMPLATES[:2]):
        if key not in definition:
            yield (), f"{key} is missing, a template of the harness that {output} needs"
    if not any(isinstance(definition.get(key), str) for key in _SPLITS[:3]):
        yield (), "no split to score: expected test_split or validation_split"
    yield from _whole("repeats", definition.get("repeats", 1), MAX_REPEATS)
    yield from _mapping_problems("generation_kwargs", definition.get("generation_kwargs"), _GENERATION)
    yield from _mapping_problems("fewshot_config", definition.get("fewshot_config"), _FEWSHOT)
    generation = definition.get("generation_kwargs")
    for key in ("max_gen_toks", "max_new_tokens") if isinstance(generation, dict) else ():
        for _, message in _whole(key, generation.get(key, 1), MAX_TOKENS):  # type: ignore[union-attr]
            yield ("generation_kwargs", key), message
    fewshot = definition.get("fewshot_config")
    sampler = fewshot.get("sampler", "default") if isinstance(fewshot, dict) else "default"
    if not isinstance(sampler, str) or sampler not in _SAMPLERS:
        yield ("fewshot_config", "sampler"), f"unknown sampler {sampler!r}; expected {' or '.join(sorted(_SAMPLERS))}"
    yield from _metric_problems(definition.get("metric_list"), metrics)
    yield from _filter_problems(definition.get("filter_list"))


def _whole(key: str, value: object, most: int) -> Iterator[tuple[Key, str]]:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        yield (key,), f"{key} is {value!r}: expected a whole number from 1 to {most}"


def _mapping_problems(key: str, value: object, allowed: Collection[str]) -> Iterator[tuple[Key, str]]:
    if value is None:
        return
    if not isinstance(value, dict):
        yield (key,), f"{key}: expected keys and values"
        return
    for name in value:
        if name not in allowed:
            yield (key, name), f"{key} has no key {name!r} in a recipe; expected one of {', '.join(sorted(allowed))}"


def _metric_problems(value: object, metrics: Collection[str]) -> Iterator[tuple[Key, str]]:
    if value is not None and not (isinstance(value, list) and value):
        yield ("metric_list",), "metric_list: expected a list of {metric: NAME}"
    for number, item in enumerate(value if isinstance(value, list) else []):
        place: Key = ("metric_list", number)
        if not isinstance(item, dict) or not isinstance(item.get("metric"), str):
            yield place, "expected {metric: NAME, aggregation: NAME, higher_is_better: true}"
        elif item.get("hf_evaluate"):
            yield (*place, "hf_evaluate"), "a metric of the Hub is code of no pinned commit; remove hf_evaluate"
        elif item["metric"] not in metrics:
            yield (*place, "metric"), f"no metric {item['metric']!r}{did_you_mean(item['metric'], metrics)}"


def _filter_problems(value: object) -> Iterator[tuple[Key, str]]:
    if value is not None and not isinstance(value, list):
        yield ("filter_list",), "filter_list: expected a list of {name: NAME, filter: [{function: NAME}]}"
    for number, item in enumerate(value if isinstance(value, list) else []):
        steps = item.get("filter") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not isinstance(steps, list):
            yield ("filter_list", number), "expected {name: NAME, filter: [{function: NAME}]}"
            continue
        for step in steps:
            name = step.get("function") if isinstance(step, Mapping) else step
            if not isinstance(name, str) or name not in _FILTERS:
                expected = ", ".join(sorted(_FILTERS))
                yield ("filter_list", number, "filter"), f"no filter {name!r} for recipes; expected one of {expected}"


def _dataset_problems(task: Task, definition: Definition) -> Found:
    """Yield a mistake if recipe and definition name two datasets."""
    found: dict[str, Any] = {"path": task.dataset.written_path, "name": task.dataset.name}
    for key, value in found.items():
        own = definition.get(f"dataset_{key}", value)
        if own != value:
            message = f"task {task.name}: the definition has the dataset {key} {own!r}, the recipe {value!r}"
            yield ("task", f"dataset_{key}"), EvaluationError(message, hint="remove one of the two")
