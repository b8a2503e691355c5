"""Task kinds by name: those of this package, and those that other distributions offer as plug-ins.

A plug-in is an entry point of the group `hubmerge.tasks`. Its name is the name of the kind. Its object is a
`hubmerge.evaluation.kinds.TaskKind`, or a class that makes one without arguments. A kind is imported when a task needs
it: the libraries behind it take seconds, and a recipe is checked against names alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hubmerge.errors import EvaluationError
from hubmerge.support.plugins import Plugin, find_plugin, installed_plugins
from merge_recipes.near_names import KIND_SYNONYMS, suggestion

if TYPE_CHECKING:
    from hubmerge.evaluation.kinds import TaskKind

GROUP = "hubmerge.tasks"

_BUILT_IN = {
    "zero-shot-image-classification": ("hubmerge.evaluation.zero_shot", "ZeroShotImageClassification"),
    "image-classification": ("hubmerge.evaluation.image_classification", "ImageClassification"),
    "text-classification": ("hubmerge.evaluation.text_classification", "TextClassification"),
    "zero-shot-text-classification": ("hubmerge.evaluation.zero_shot_text", "ZeroShotTextClassification"),
    "sentence-similarity": ("hubmerge.evaluation.sentence_similarity", "SentenceSimilarity"),
    "text-retrieval": ("hubmerge.evaluation.text_retrieval", "TextRetrieval"),
    "causal-lm": ("hubmerge.evaluation.causal_lm", "CausalLM"),
    "lm-eval": ("hubmerge.evaluation.lm_eval_task", "HarnessKind"),
    "generation": ("hubmerge.evaluation.generation", "Generation"),
}

TASK_KIND_NAMES = tuple(_BUILT_IN)
"""The kinds of this package."""


def task_kind_names() -> tuple[str, ...]:
    """Return the names of all kinds, without importing any: those of this package first."""
    offered = dict.fromkeys(plugin.name for plugin in installed_plugins(GROUP))
    return (*_BUILT_IN, *(name for name in offered if name not in _BUILT_IN))


def task_kind_plugin(name: str) -> Plugin | None:
    """Return the plug-in that offers a kind, None for a kind of this package and for an unknown one.

    Raises:
        MachineError: several distributions offer it.
    """
    return None if name in _BUILT_IN else find_plugin(GROUP, name)


def task_kind_named(name: str) -> TaskKind:
    """Import and return the kind that a recipe names.

    Raises:
        EvaluationError: the kind is unknown.
        MachineError: it is a plug-in that cannot be used.
    """
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        kind: TaskKind = getattr(importlib.import_module(module), attribute)()
        return kind
    plugin = task_kind_plugin(name)
    if plugin is None:
        near = suggestion(name, task_kind_names(), KIND_SYNONYMS)
        raise EvaluationError(f"unknown task kind {name!r}{near}", hint=f"one of {', '.join(task_kind_names())}")
    return _loaded(plugin)


def _loaded(plugin: Plugin) -> TaskKind:
    """Return the kind of a plug-in, checked."""
    kind: Any = plugin.load()
    if isinstance(kind, type):
        try:
            kind = kind()
        except Exception as error:
            raise plugin.fault(f"cannot be constructed: {type(error).__name__}: {error}") from error
    lacking = [name for name in ("open_scorer", "prepare") if not callable(getattr(kind, name, None))]
    if lacking:
        raise plugin.fault(f"is not a task kind: it has no method {' and no method '.join(lacking)}")
    if getattr(kind, "name", None) != plugin.name:
        found = repr(getattr(kind, "name", None))
        raise plugin.fault(f"has the attribute name = {found}; entry point and task kind must have the same name")
    checked: TaskKind = kind
    return checked
