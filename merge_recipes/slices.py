"""Slices of a recipe: runs of layers, from one or several models, that are stacked to a new model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from merge_recipes.gradients import is_gradient
from merge_recipes.record import Record
from merge_recipes.references import ModelReference, checkpoint_key
from merge_recipes.schema_types import Parameters, Reference

LayerNumber = Annotated[int, Field(ge=0)]


class LayerSource(Record):
    """Layers of one model."""

    model: Reference
    """The model."""
    layer_range: tuple[LayerNumber, LayerNumber]
    """The first layer, from 0, and the layer after the last one."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters for these layers of this model; they override all others."""

    @property
    def layers(self) -> range:
        """The numbers of the layers in their model."""
        return range(*self.layer_range)


class Slice(Record):
    """Layers of the merged model that are merged from the same layers of one or several models."""

    sources: tuple[LayerSource, ...] = Field(min_length=1)
    """The layers of each model; all ranges have one length."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the merge method for this slice; they override the top-level parameters."""
    base_model: Reference | None = None
    """The model that task vectors start from in this slice; by default the recipe's base model."""

    @property
    def length(self) -> int:
        """Number of layers of the merged model."""
        return len(self.sources[0].layers)

    def within(self, folder: Path) -> Slice:
        """Return the slice with absolute local paths; relative ones start in `folder`."""
        sources = tuple(one.model_copy(update={"model": one.model.within(folder)}) for one in self.sources)
        base = None if self.base_model is None else self.base_model.within(folder)
        return self.model_copy(update={"sources": sources, "base_model": base})

    def place_of(self, base: ModelReference) -> int | None:
        """Return the index of the source that task vectors start from, None if it is none of them."""
        key = checkpoint_key(self.base_model or base)
        keys = [checkpoint_key(source.model) for source in self.sources]
        return keys.index(key) if key in keys else None


def joined_levels(inner: dict[str, Any], outer: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of two levels as those of one; where no filter of the inner one matches, the outer counts.

    >>> joined_levels({"t": [{"filter": "mlp", "value": 0.1}]}, {"t": 0.5, "eps": 1})
    {'t': [{'filter': 'mlp', 'value': 0.1}, {'value': 0.5}], 'eps': 1}
    """
    found = {**outer, **inner}
    for name in inner.keys() & outer.keys():
        if _has_filters(inner[name]):
            after = outer[name] if _has_filters(outer[name]) else [{"value": outer[name]}]
            found[name] = [*inner[name], *after]
    return {name: found[name] for name in [*inner, *(name for name in outer if name not in inner)]}


def _has_filters(value: Any) -> bool:
    return isinstance(value, list) and not is_gradient(value)


def first_layers(sources: Any) -> int | None:
    """Return N if all sources have the range [0, N] and are different models, else None."""
    if not isinstance(sources, list) or not sources or not all(isinstance(source, dict) for source in sources):
        return None
    ranges, models = [source.get("layer_range") for source in sources], [source.get("model") for source in sources]
    end = ranges[0][1] if isinstance(ranges[0], list) and len(ranges[0]) == 2 else None
    if type(end) is not int or end < 1 or any(found != [0, end] for found in ranges):
        return None
    return end if all(models.count(model) == 1 for model in models) else None


def free_name(model: str, others: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return a name for a model whose own one is taken by one of the others; none if it is free."""
    reference = ModelReference.try_parse(model)
    if not isinstance(reference, ModelReference):
        return {}
    taken = {other.get("name") or _short_name(other["model"]) for other in others}
    number = 2
    while (name := f"{reference.short_name}-{number}") in taken:
        number += 1
    return {"name": name} if reference.short_name in taken else {}


def _short_name(model: str) -> str:
    reference = ModelReference.try_parse(model)
    return reference.short_name if isinstance(reference, ModelReference) else model
