"""Merge methods, kinds of task and metrics that this installation offers to recipes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class Catalog:
    """Implementation of `merge_recipes.Catalog`: parameter classes by method, kinds of task, metrics."""

    methods: Mapping[str, type[BaseModel]]
    task_kinds: Collection[str]
    metrics: Collection[str]


def installed_catalog() -> Catalog:
    """Return the methods, kinds of task and metrics of this installation."""
    from hubmerge.evaluation import METRIC_NAMES, TASK_KIND_NAMES
    from hubmerge.methods import METHODS

    return Catalog(
        methods={method.name: method.Parameters for method in METHODS},
        task_kinds=TASK_KIND_NAMES,
        metrics=METRIC_NAMES,
    )
