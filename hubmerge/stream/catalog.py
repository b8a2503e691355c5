"""Catalog of what recipes may name: merge methods, kinds of task and metrics of this installation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from hubmerge.methods import method_named, method_names


@dataclass(frozen=True)
class InstalledCatalog:
    """Implements `merge_recipes.Catalog`: parameter classes by method name, kinds of task, metrics of the package."""

    methods: Mapping[str, type[BaseModel]]
    task_kinds: Collection[str]
    metrics: Collection[str]


class InstalledParameters(Mapping[str, type[BaseModel]]):
    """Parameter classes of all methods by name. A plug-in is imported when its own class is asked for."""

    def __getitem__(self, name: str) -> type[BaseModel]:
        if name not in self:
            raise KeyError(name)
        return method_named(name).Parameters

    def __contains__(self, name: object) -> bool:
        return name in method_names()

    def __iter__(self) -> Iterator[str]:
        return iter(method_names())

    def __len__(self) -> int:
        return len(method_names())


def installed_catalog() -> InstalledCatalog:
    """Return what this installation offers."""
    from hubmerge.evaluation import METRIC_NAMES, task_kind_names

    return InstalledCatalog(methods=InstalledParameters(), task_kinds=task_kind_names(), metrics=METRIC_NAMES)
