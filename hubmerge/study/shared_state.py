"""Cells of a study whose states are equal: they are merged once, and each reads its own model out of every state."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pydantic import BaseModel

from hubmerge.executor import Merge, StepInput, StepStats
from hubmerge.executor.state import State
from hubmerge.methods import JointMethod, Method, method_named, method_of
from hubmerge.methods.readers import saved_name
from hubmerge.study.bench import Bench
from hubmerge.study.cells import Cell
from merge_recipes import Recipe, StreamEntry, TensorParameters
from merge_recipes.canonical import content_digest


@dataclass(frozen=True)
class CellMerge:
    """Merge of one cell: its method, and its parameters for each entry and tensor."""

    bench: Bench
    cell: Cell
    digest: str

    @cached_property
    def recipe(self) -> Recipe:
        """Recipe of the cell."""
        return self.cell.recipe(self.bench.recipe)

    @cached_property
    def method(self) -> Method:
        """Method of the cell, which is no joint one."""
        return method_named(self.cell.method)

    @property
    def entries(self) -> tuple[StreamEntry, ...]:
        """Entries in merge order."""
        return self.recipe.stream()

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the entries in merge order."""
        return tuple(entry.name for entry in self.entries)

    def parameters(self, entry: StreamEntry) -> TensorParameters[BaseModel]:
        """Return the parameters of an entry for each tensor."""
        return TensorParameters(self.method.Parameters, self.recipe, entry, self.bench.plan.positions)

    def state_key(self) -> str:
        """Return a digest of all that changes the states of this cell: cells with equal ones have equal states."""
        names = [tensor.name for tensor in self.bench.plan.merged]
        entries = [[entry.name, *self._state_parameters(self.parameters(entry), names)] for entry in self.entries]
        return content_digest([saved_name(self.method), entries, self.cell.round_to, self.cell.perturb])

    def _state_parameters(self, parameters: TensorParameters[BaseModel], names: Sequence[str]) -> list[object]:
        """Return the parameters that change the state, once for each group of tensors that share them."""
        groups: dict[int, tuple[BaseModel, list[str]]] = {}
        for name in names:
            values = parameters(name)
            groups.setdefault(id(values), (values, []))[1].append(name)
        found: dict[str, tuple[Mapping[str, object], list[str]]] = {}
        for values, tensors in groups.values():
            own = self.method.state_parameters(values)
            found.setdefault(content_digest(own), (own, []))[1].extend(tensors)
        if len(found) == 1:
            return [own for own, _ in found.values()]
        return [[own, sorted(tensors)] for own, tensors in sorted(found.values(), key=lambda group: min(group[1]))]

    def as_own(self, state: State, stats: StepStats) -> tuple[State, StepStats]:
        """Return state and statistics of a step, merged for a cell with equal states, with the scale of this one."""
        bench = self.bench
        step_input = StepInput(bench.base, self.parameters(self.entries[state.step - 1]))
        merge = Merge(bench.base, self.method, bench.plan)
        variant = merge.variant(step_input)
        scale = variant.scale(state.manifest.norms, merge.model_parameters(step_input))
        own = copy.copy(state)
        own.manifest = replace(state.manifest, scale=scale)
        return own, replace(stats, method=variant.name, scale=scale, reads_state=variant.reads_state)


def grouped_by_state(bench: Bench, missing: Mapping[str, Cell]) -> list[list[CellMerge]]:
    """Return the cells in groups with equal states, in the order of their first cells.

    Methods that merge all models at once, or that look at the whole model before a step, share nothing.

    Args:
        bench: the opened stream.
        missing: the cells by digest.
    """
    groups: dict[str, list[CellMerge]] = {}
    for digest, cell in missing.items():
        merge = CellMerge(bench, cell, digest)
        method = method_of(merge.recipe)
        alone = isinstance(method, JointMethod) or method.surveys_model
        groups.setdefault(digest if alone else merge.state_key(), []).append(merge)
    return list(groups.values())
