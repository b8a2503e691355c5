"""Which methods read the states of which: those whose states are equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hubmerge.errors import HubmergeError
from hubmerge.methods.base import Method
from hubmerge.methods.registry import METHODS, find_method, method_names
from merge_recipes.parameters import parameters_from


def saved_name(method: Method) -> str:
    """Return the name of a method in its states."""
    return method.state_name or method.name


def readers_of(name: str) -> list[str]:
    """Return the methods of this package whose states have a name."""
    return [method.name for method in METHODS if saved_name(method) == name]


def state_differences(
    merged: Method, parameters: Mapping[str, Any], method: Method, own: Mapping[str, Any]
) -> list[str]:
    """Return the parameters in which the state that a method reads differs from the one that another one saves.

    Args:
        merged: the method that saves the state.
        parameters: its parameters.
        method: the method that reads it.
        own: its parameters; those that change the state may be left out.
    """
    theirs = _state_parameters(merged, parameters)
    ours = _state_parameters(method, {**_shared(merged, parameters, method), **own})
    lists = [name for name, value in own.items() if isinstance(value, list) and name in theirs]
    different = [name for name in lists if parameters.get(name) != own[name]]
    return sorted({*different, *(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))})


def _shared(merged: Method, parameters: Mapping[str, Any], method: Method) -> dict[str, Any]:
    """Return the parameters of a recipe that change the state and that another method has too."""
    names = set(_state_parameters(merged, parameters)) & set(method.Parameters.model_fields)
    return {name: value for name, value in parameters.items() if name in names or name == "form"}


def _state_parameters(method: Method, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters that change a state, without those that differ between tensors."""
    plain = {name: value for name, value in parameters.items() if not isinstance(value, list)}
    return method.state_parameters(parameters_from(method.Parameters, plain))


def reading_problem(
    merged: str, parameters: Mapping[str, Any], method: str, own: Mapping[str, Any]
) -> tuple[str, str | None, str | None] | None:
    """Return why a method cannot read the states of another one, see `merge_recipes.read_rules.StateCatalog`.

    Methods and parameters that are wrong on their own are no problem of this kind.
    """
    if not {merged, method} <= set(method_names()):
        return None
    saving, reading = find_method(merged).method, find_method(method).method
    if not isinstance(saving, Method):
        return f"{merged} merges all models at once and has no state to read", "remove `read`", None
    readers = ", ".join(readers_of(saved_name(saving)))
    hint = f"use one of {readers}" if readers else None
    if not isinstance(reading, Method):
        return f"{method} merges all models at once and reads no state", hint, None
    if saved_name(reading) != saved_name(saving):
        return f"{method} cannot read the states of {merged}", hint, None
    try:
        different = state_differences(saving, parameters, reading, own)
    except (ValidationError, ValueError, HubmergeError):
        return None
    if not different:
        return None
    key = next((name for name in different if name in own), None)
    known = key in saving.Parameters.model_fields
    advice = "write it under the top-level `parameters`, for all read-outs" if known else None
    return f"{' and '.join(different)} of {method} would need another state", advice, key
