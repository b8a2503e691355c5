"""Catalog of what recipes may name: merge methods, kinds of task and metrics of this installation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from hubmerge.methods import JointMethod, Method, find_method, method_names
from hubmerge.methods.readers import reading_problem


@dataclass(frozen=True)
class InstalledCatalog:
    """Implements `merge_recipes.Catalog`: parameter classes by method name, kinds of task, metrics of the package."""

    methods: Mapping[str, type[BaseModel]]
    joint: Mapping[str, JointMethod]
    streams: Collection[str]
    task_kinds: Collection[str]
    metrics: Collection[str]

    def reading_problem(
        self, merged: str, parameters: Mapping[str, Any], method: str, own: Mapping[str, Any]
    ) -> tuple[str, str | None, str | None] | None:
        """Return why a method cannot read the states of another one, see `merge_recipes.read_rules.StateCatalog`."""
        return reading_problem(merged, parameters, method, own)

    def task_dataset(self, name: str) -> dict[str, Any]:
        """Return the keys of the dataset of a task of lm-evaluation-harness, as a recipe has them.

        Raises:
            EvaluationError: there is no such task, or its data cannot be pinned.
        """
        from hubmerge.evaluation.harness_sources import harness_dataset

        return harness_dataset(name)


class InstalledParameters(Mapping[str, type[BaseModel]]):
    """Parameter classes of all methods by name. A plug-in is imported when its own class is asked for."""

    def __getitem__(self, name: str) -> type[BaseModel]:
        if name not in self:
            raise KeyError(name)
        return find_method(name).method.Parameters

    def __contains__(self, name: object) -> bool:
        return name in method_names()

    def __iter__(self) -> Iterator[str]:
        return iter(method_names())

    def __len__(self) -> int:
        return len(method_names())


class InstalledJoint(Mapping[str, JointMethod]):
    """The methods that merge all models at once, by name. Plug-ins are imported as above."""

    def __getitem__(self, name: str) -> JointMethod:
        if name not in method_names():
            raise KeyError(name)
        method = find_method(name, joint=True).method
        if not isinstance(method, JointMethod):
            raise KeyError(name)
        return method

    def __iter__(self) -> Iterator[str]:
        return (name for name in method_names() if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))


class InstalledStreams(Collection[str]):
    """The names of methods that merge one checkpoint after another. Plug-ins are imported as above."""

    def __contains__(self, name: object) -> bool:
        return name in method_names() and isinstance(find_method(str(name)).method, Method)

    def __iter__(self) -> Iterator[str]:
        return (name for name in method_names() if name in self)

    def __len__(self) -> int:
        return len(list(iter(self)))


def installed_catalog() -> InstalledCatalog:
    """Return what this installation offers."""
    from hubmerge.evaluation import METRIC_NAMES, task_kind_names

    return InstalledCatalog(
        methods=InstalledParameters(),
        joint=InstalledJoint(),
        streams=InstalledStreams(),
        task_kinds=task_kind_names(),
        metrics=METRIC_NAMES,
    )
