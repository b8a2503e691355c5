"""Buffers of a model under their names in files, from its class."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from hubmerge.checkpoints.matching.buffers import TEMPERATURE, VARIANCE, Buffers, is_count, must_not_be_negative
from hubmerge.checkpoints.matching.named_buffers import fixed_by_name, statistics_by_name
from hubmerge.checkpoints.model_class.model_class import ModelClass
from hubmerge.checkpoints.tensors import TensorInfo

BY_NAME = "running_mean and running_var of one module, and others known by name"


def buffers_by_name(tensors: Mapping[str, TensorInfo]) -> Buffers:
    """Return the buffers of a model whose class is not known."""
    return _buffers(set(statistics_by_name(tensors, tensors)), set(), tensors, f"{BY_NAME}; its class is not known")


def buffers_of_class(
    model_class: ModelClass,
    tensors: Mapping[str, TensorInfo],
    places: Mapping[str, str],
    in_file: Callable[[str], str | None],
) -> Buffers:
    """Return the buffers of a model's class, under the names that they have or would have in the model's files.

    Args:
        model_class: the class.
        tensors: the tensors in the model's files.
        places: names in memory to names in the files, for the parameters that the files have.
        in_file: returns the name in the files of a tensor in memory, None if the files do not have it.
    """
    prefixes: dict[str, str] = {}
    for own, stored in places.items():
        _add_prefixes(prefixes, own, stored)
    named = {own: in_file(own) or _stored_name(own, prefixes) for own in model_class.buffers}
    statistics = {named[own] for own, saved in model_class.buffers.items() if saved}
    computed = {named[own] for own, saved in model_class.buffers.items() if not saved}
    known = {*named.values(), *places.values()}
    rest = {name: info for name, info in tensors.items() if name not in known}
    more = set(statistics_by_name(tensors, rest))
    source = f"buffers that {model_class.name} saves" + (f", and {BY_NAME}" if more else "")
    return _buffers(statistics | more, computed, tensors, source, places=places.values())


def _buffers(
    statistics: set[str], computed: set[str], tensors: Iterable[str], source: str, *, places: Collection[str] = ()
) -> Buffers:
    """Return buffers with those that are fixed and those that must not become negative.

    Args:
        statistics: buffers that are saved with the weights.
        computed: buffers that are computed from the config.
        tensors: the tensors in the model's files.
        source: the class or the rule.
        places: the tensors that are parameters of the class.
    """
    names = {*tensors, *statistics}
    fixed = set(fixed_by_name(names)).difference(places)
    variances = {name for name in statistics - fixed if must_not_be_negative(name)}
    rest = names.difference(statistics, places)
    for name in names:
        last = name.rpartition(".")[2]
        if last == TEMPERATURE or (name in rest and (last == VARIANCE or is_count(last))):
            variances.add(name)
    return Buffers(
        frozenset(statistics - fixed),
        frozenset(computed),
        frozenset(fixed),
        frozenset(variances),
        source,
        names_count=True,
    )


def stored_prefix(path: str, places: Mapping[str, str]) -> str:
    """Return the prefix in the files of a module in memory, given names in memory and in the files."""
    prefixes: dict[str, str] = {}
    for own, stored in places.items():
        _add_prefixes(prefixes, own, stored)
    return prefixes[path] if path in prefixes else _stored_name(path, prefixes)


def _add_prefixes(prefixes: dict[str, str], own: str, stored: str) -> None:
    """Add the modules around a parameter: name in memory to name in the files."""
    mine, other = own.split("."), stored.split(".")
    while mine and other and mine[-1] == other[-1]:
        mine.pop()
        other.pop()
        prefixes.setdefault(".".join(mine), ".".join(other))


def _stored_name(own: str, prefixes: Mapping[str, str]) -> str:
    """Return the name that a tensor of the class would have in the files, after the nearest module that they have."""
    parts = own.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        prefix = prefixes.get(".".join(parts[:depth]))
        if prefix is not None:
            return ".".join([*([prefix] if prefix else []), *parts[depth:]])
    return own
