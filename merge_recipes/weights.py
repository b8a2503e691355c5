"""Weights of models that mean something else than they seem to: sums of zero, negative ones, missing ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from merge_recipes.errors import Problem
from merge_recipes.gradients import interpolated, is_gradient
from merge_recipes.joint_form import JointForm
from merge_recipes.mergekit import WITH_TWO_FORMS
from merge_recipes.parameters import parameter_fields, selected
from merge_recipes.read_yaml import Document
from merge_recipes.rules import RawEntry, has_queries, is_base, mapping_at, raw_entries

SMALLEST_SUM = 1e-8

_SWITCHES = ("normalize", "normalize_weights")
_ELECTING = frozenset({"breadcrumbs_ties", "dare_ties", "della", "ties"})
"""Methods that divide by the weights of the models that agree, element by element."""


def weight_problems(
    document: Document, method: str, form: JointForm | None, parameters_class: type[BaseModel]
) -> Iterator[Problem]:
    """Yield a problem if weights by whose sum the merge divides sum to zero, somewhere in the model.

    Args:
        document: the recipe.
        method: the name of its method.
        form: the form of the method that merges all models at once; None for a stream.
        parameters_class: the parameters class of the method.
    """
    if has_queries(document) or not _divides(document, method, parameters_class):
        return
    entries = _weighted(document, form)
    for where, name, position in _places(document, entries):
        weights = _weights(document, entries, name, position)
        if not weights:
            return
        zero = all(one == 0 for one in weights) if method in _ELECTING else abs(math.fsum(weights)) < SMALLEST_SUM
        if zero:
            shown = ", ".join(f"{one:g}" for one in weights)
            message = f"the weights {shown} sum to zero{where}, and the method divides by their sum"
            yield document.problem(_place(entries), message, "change a weight, or write `normalize: false`")
            return


def weight_notes(
    document: Document, method: str, form: JointForm | None, parameters_class: type[BaseModel]
) -> Iterator[Problem]:
    """Yield remarks on weights of which mergekit or a reader may think otherwise. The arguments are as above."""
    levels = [mapping_at(document), *(entry.data for entry in raw_entries(document))]
    given = any("weight" in _parameters(level) for level in levels)
    if form is None and method in WITH_TWO_FORMS and not given:
        message = f"no weights: mergekit stops here; this is the form of {method} that has `scaling` in their place"
        yield document.problem(("merge_method",), message, "to merge as mergekit does, give each model a `weight`")
    if not _divides(document, method, parameters_class):
        return
    entries = _weighted(document, form)
    for where, name, position in _places(document, entries):
        weights = _weights(document, entries, name, position)
        if any(one < 0 for one in weights):
            total = f"{math.fsum(weights):g}"
            message = (
                f"a weight is negative{where}: the merge divides by the sum of the weights, {total}, signs included"
            )
            yield document.problem(_place(entries), message)
            return


def _divides(document: Document, method: str, parameters_class: type[BaseModel]) -> bool:
    """Return True if the merge divides by the sum of the weights."""
    if method == "nuslerp":
        return True
    fields = parameter_fields(parameters_class)
    name = next((name for name in _SWITCHES if name in fields and "weight" in fields), None)
    value = None if name is None else mapping_at(document, "parameters").get(name, fields[name].default)
    return value is True


def _weighted(document: Document, form: JointForm | None) -> list[RawEntry]:
    return [
        entry
        for entry in raw_entries(document)
        if (form is not None and form.base == "model") or not is_base(document, entry)
    ]


def _place(entries: Sequence[RawEntry]) -> tuple[str | int, ...]:
    """Return the key path of the first weight of a model, or of the weights at the top level."""
    own = (entry.path for entry in entries if "weight" in (_parameters(entry.data)))
    first = next(own, None)
    return ("parameters", "weight") if first is None else (*first, "parameters", "weight")


def _places(document: Document, entries: Sequence[RawEntry]) -> Iterator[tuple[str, str, float]]:
    """Yield places of the model where weights may differ: in words, a tensor's name, the position in the layers."""
    levels = [mapping_at(document), *(entry.data for entry in entries)]
    values = [_parameters(level).get("weight") for level in levels]
    filters = {
        item["filter"]: None
        for value in values
        if isinstance(value, list) and not is_gradient(value)
        for item in value
        if isinstance(item, dict) and isinstance(item.get("filter"), str) and item["filter"] != "*"
    }
    layers = any(_changes_over_layers(value) for value in values)
    for name in ["", *filters]:
        tensors = f" for tensors with {name!r} in their name" if name else ""
        for position in (0.0, 1.0) if layers else (0.0,):
            layer = (" in the first layer", " in the last layer")[int(position)] if layers else ""
            yield f"{tensors}{layer}", name, position


def _changes_over_layers(value: Any) -> bool:
    items = value if isinstance(value, list) and not is_gradient(value) else [{"value": value}]
    return any(isinstance(item, dict) and is_gradient(item.get("value")) for item in items)


def _weights(document: Document, entries: Sequence[RawEntry], name: str, position: float) -> list[float]:
    """Return the weight of each model at a place; an empty list if one is not a number."""
    top = mapping_at(document, "parameters")
    found = [_weight([_parameters(entry.data), top], name, position) for entry in entries]
    return [one for one in found if one is not None] if None not in found else []


def _weight(levels: Sequence[Mapping[str, Any]], name: str, position: float) -> float | None:
    for level in levels:
        given = level.get("weight")
        if isinstance(given, list) and not is_gradient(given) and not all(isinstance(item, dict) for item in given):
            return None  # a mistake that other rules report
        if "weight" in level:
            matches, value = selected(given, name)
            if matches:
                value = interpolated(value, position) if is_gradient(value) else value
                return float(value) if isinstance(value, int | float) else None
    return None


def _parameters(level: Mapping[str, Any]) -> Mapping[str, Any]:
    values = level.get("parameters")
    return values if isinstance(values, dict) else {}
