"""What recipes may name: the merge methods, the kinds of task and the metrics that this installation has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import BaseModel


@dataclass(frozen=True)
class Catalog:
    """Implements `merge_recipes.Catalog`: parameter classes by method name, kinds of task, metrics of the package."""

    methods: Mapping[str, type[BaseModel]]
    task_kinds: Collection[str]
    metrics: Collection[str]


def installed_catalog() -> Catalog:
    """Return what this installation offers."""
    from hubmerge.evaluation import METRIC_NAMES, TASK_KIND_NAMES
    from hubmerge.methods import METHODS

    return Catalog(
        methods={method.name: method.Parameters for method in METHODS},
        task_kinds=TASK_KIND_NAMES,
        metrics=METRIC_NAMES,
    )
