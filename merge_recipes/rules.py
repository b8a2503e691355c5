"""Rules between the keys of a recipe that need no knowledge of methods or kinds of task.

They look at plain data and pass over whatever is not of the shape they need, so that one broken key does not hide
what is wrong with the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_recipes.errors import InvalidReferenceError, KeyPath, Problem, did_you_mean, shown
from merge_recipes.mergekit import GRADIENT
from merge_recipes.queries import ENTRY, kind_of_item
from merge_recipes.read_yaml import Document
from merge_recipes.references import ModelReference


@dataclass(frozen=True)
class RawEntry:
    """One item of `models` as far as it can be understood."""

    path: KeyPath
    data: Mapping[str, Any]
    reference: ModelReference | None
    name: str | None


def mapping_at(document: Document, *path: str) -> dict[str, Any]:
    """Return the mapping under a key path, or an empty one if there is none."""
    value = document.data
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def items_at(document: Document, *path: str) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Return the mappings of the list under a key path, each with its own key path."""
    values = mapping_at(document, *path[:-1]).get(path[-1])
    if not isinstance(values, list):
        return []
    return [((*path, index), value) for index, value in enumerate(values) if isinstance(value, dict)]


def reference_in(value: object) -> ModelReference | None:
    """Return the reference that a value holds, or None if it holds none."""
    try:
        return ModelReference.parse(value) if isinstance(value, str) else None
    except InvalidReferenceError:
        return None


def raw_entries(document: Document) -> list[RawEntry]:
    """Return the items of `models` as far as they can be understood."""
    entries = []
    for path, data in items_at(document, "models"):
        reference = reference_in(data.get("model"))
        name = data.get("name", reference.short_name if reference else None)
        entries.append(RawEntry(path, data, reference, name if isinstance(name, str) else None))
    return entries


def broken_rules(document: Document) -> list[Problem]:
    """Return every rule between keys that the document breaks."""
    entries = raw_entries(document)
    return [
        *_order(document),
        *_queries(document),
        *_adapted_base(document),
        *_bases_in_the_stream(document, entries),
        *_duplicate_entries(document, entries),
        *_tasks(document, entries),
        *_target(document, entries),
        *_parameter_shapes(document, entries),
    ]


def _order(document: Document) -> Iterator[Problem]:
    data = mapping_at(document)
    has_seed = data.get("seed") is not None
    if data.get("order") == "shuffled" and not has_seed:
        yield document.problem(("order",), "a shuffled order needs a seed", "add for example `seed: 42`")
    if data.get("order", "listed") == "listed" and has_seed:
        hint = "leave it out, or write `order: shuffled`"
        yield document.problem(("seed",), "a seed has no meaning where the order is as listed", hint, at_key=True)


def _has_queries(document: Document) -> bool:
    return any(kind_of_item(item) != ENTRY for _, item in items_at(document, "models"))


def _queries(document: Document) -> Iterator[Problem]:
    if mapping_at(document).get("order") == "shuffled" and _has_queries(document):
        message = "a stream that is found by a query grows: its order is that in which the models were made"
        yield document.problem(("order",), message, "leave out `order` and `seed`")


def checkpoint_key(reference: ModelReference) -> tuple[str, ...]:
    """Return what is equal for two references, as written, to the same checkpoint; no revision means `main`."""
    key = (reference.path.rstrip("/"), reference.revision or "main", reference.subfolder or "")
    return key if reference.adapter is None else (*key, *checkpoint_key(reference.adapter))


def _adapted_base(document: Document) -> Iterator[Problem]:
    base = reference_in(mapping_at(document).get("base_model"))
    if base is not None and base.adapter is not None:
        hint = "merge the adapter into its model and name the result, or make the adapter an entry of the stream"
        yield document.problem(("base_model",), "the base model has no adapter of its own", hint)


def is_base(document: Document, entry: RawEntry) -> bool:
    """Tell whether an item of `models` is the base model, which is refused there."""
    base = reference_in(mapping_at(document).get("base_model"))
    return base is not None and entry.reference is not None and checkpoint_key(base) == checkpoint_key(entry.reference)


def _bases_in_the_stream(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    for entry in entries:
        if is_base(document, entry):
            message = "this is the base model: its task vector is zero"
            yield document.problem((*entry.path, "model"), message, "the base model joins by itself: remove it here")


def _duplicate_entries(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    seen: dict[str, RawEntry] = {}
    for entry in entries:
        if entry.name is None:
            continue
        if entry.name in seen:
            line = document.marks.value(seen[entry.name].path)[0]
            message = f"the name {shown(entry.name)} is taken by the entry in line {line}"
            yield document.problem((*entry.path, "name"), message, "give the entry another `name:`")
        seen.setdefault(entry.name, entry)


def _tasks(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    names = [entry.name for entry in entries if entry.name is not None]
    seen: dict[str, KeyPath] = {}
    for path, task in items_at(document, "evaluate", "tasks"):
        name, model = task.get("name"), task.get("model")
        if isinstance(name, str):
            if name in seen:
                place = document.line_of((*seen[name], "name"))
                yield document.problem((*path, "name"), f"the name {shown(name)} is taken by the task in {place}")
            seen.setdefault(name, path)
        if isinstance(model, str) and model not in names and not _has_queries(document):
            message = f"no entry of the stream is called {shown(model)}{did_you_mean(model, names)}"
            yield document.problem((*path, "model"), message)


def _target(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    repo = mapping_at(document, "publish").get("repo")
    inputs = [entry.reference for entry in entries] + [reference_in(mapping_at(document).get("base_model"))]
    if isinstance(repo, str) and any(model is not None and model.path.lower() == repo.lower() for model in inputs):
        yield document.problem(("publish", "repo"), f"{shown(repo)} is one of the models that are merged")


def _parameter_shapes(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    for path, data in [((), mapping_at(document)), *((entry.path, entry.data) for entry in entries)]:
        parameters = data.get("parameters")
        if isinstance(parameters, dict):
            for name, value in parameters.items():
                yield from value_shape(document, (*path, "parameters", name), value)


def value_shape(document: Document, path: KeyPath, value: object) -> Iterator[Problem]:
    """Check that a parameter's value is one value, or a filter list."""
    if isinstance(value, dict):
        yield document.problem(path, "expected one value, or a list of {value, filter}; got a mapping")
    elif value is None:
        yield document.problem(path, "expected a value, got nothing (the value is empty)")
    elif isinstance(value, list):
        yield from _filter_list(document, path, value)


def _filter_list(document: Document, path: KeyPath, items: list[object]) -> Iterator[Problem]:
    if not items:
        yield document.problem(path, "the list is empty: expected one value, or a list of {value, filter}")
    elif all(isinstance(item, int | float) for item in items):
        yield document.problem(path, GRADIENT)
    else:
        for index, item in enumerate(items):
            yield from _filter_item(document, (*path, index), item)


def _filter_item(document: Document, path: KeyPath, item: object) -> Iterator[Problem]:
    if not isinstance(item, dict):
        yield document.problem(path, f"expected {{value: ..., filter: ...}}, got {shown(item)}")
        return
    for key in item:
        if key not in {"value", "filter"}:
            message = f"unknown key{did_you_mean(key, ('value', 'filter'))}"
            yield document.problem((*path, key), message, at_key=True)
    if "value" not in item:
        yield document.problem(
            (*path, "value"), "this key is required: the value for the tensors that the filter selects"
        )
    elif isinstance(item["value"], list):
        yield document.problem((*path, "value"), GRADIENT)
    elif item["value"] is None or isinstance(item["value"], dict):
        yield document.problem((*path, "value"), f"expected one value, got {shown(item['value'])}")
    name = item.get("filter", "*")
    if not isinstance(name, str) or not name:
        yield document.problem((*path, "filter"), f"expected part of a tensor's name, or *; got {shown(name)}")
