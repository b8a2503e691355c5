"""Defaults of a task's keys that depend on its kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from merge_recipes.language_task import GENERATION_KIND

KIND_DEFAULTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sentence-similarity": {"metrics": ("spearman",)},
    "text-retrieval": {"metrics": ("ndcg@10",)},
    GENERATION_KIND: {"metrics": ("exact_match",)},
    "zero-shot-text-classification": {"prompts": ("This example is {}.",)},
}
"""Values by kind and key."""


def kind_defaults(kind: str, given: Collection[str]) -> dict[str, Any]:
    """Return the defaults of a kind of task for the keys that a task does not have.

    Args:
        kind: the kind.
        given: the keys of the task.
    """
    return {key: value for key, value in KIND_DEFAULTS.get(kind, {}).items() if key not in given}
