"""Rules between the keys of tasks of language models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from merge_recipes.errors import KeyPath, Problem
from merge_recipes.language_task import GENERATION_KIND, HARNESS_KIND, LANGUAGE_KEYS, LANGUAGE_KINDS
from merge_recipes.read_yaml import Document

_OF_BOTH = frozenset({"chat_template", "engine", "batch_size"})
_OF_HARNESS = frozenset({"task", "num_fewshot", "limit", "seed"})
_USED = {
    HARNESS_KIND: _OF_BOTH | _OF_HARNESS,
    GENERATION_KIND: frozenset(LANGUAGE_KEYS) - _OF_HARNESS,
}


def language_problems(document: Document, path: KeyPath, task: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the mistakes of a task in the keys of language models.

    Args:
        document: the recipe.
        path: the key path of the task.
        task: its keys.
    """
    kind = task.get("kind")
    for key in LANGUAGE_KEYS if isinstance(kind, str) else ():
        if key in task and key not in _USED.get(str(kind), ()):
            kinds = " and ".join(one for one in LANGUAGE_KINDS if key in _USED[one])
            message = f"{key} is a key of tasks of the kind {kinds}, this one is of the kind {kind}"
            yield document.problem((*path, key), message, f"remove `{key}`", at_key=True)
    if kind == HARNESS_KIND:
        yield from _harness(document, path, task)


def _harness(document: Document, path: KeyPath, task: Mapping[str, Any]) -> Iterator[Problem]:
    source = task.get("dataset")
    if task.get("task") is None:
        message = "this key is required for the kind lm-eval: a task of lm-evaluation-harness"
        yield document.problem((*path, "task"), message, "write `task: NAME`, or `task: ./my_task.yaml`")
    if not isinstance(source, dict):
        return
    for key in ("image", "label", "text"):
        if key in source:
            message = f"{key} has no effect: a task of lm-evaluation-harness names its columns itself"
            yield document.problem((*path, "dataset", key), message, f"remove `{key}`", at_key=True)
    if "limit" in task:
        for key in ("max_examples", "sample"):
            place = (*path, "dataset", key)
            if place in document.marks.values:  # else it comes from the limit
                yield document.problem(place, "limit says this already", f"remove `{key}`", at_key=True)
    elif "max_examples" in source and source.get("sample") != "first":
        message = "lm-evaluation-harness scores the first examples of a split: it draws no sample"
        hint = "write `limit: N` in the task in place of `max_examples`"
        yield document.problem((*path, "dataset", "max_examples"), message, hint, at_key=True)
