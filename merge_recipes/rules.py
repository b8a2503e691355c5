"""Rules between the keys of a recipe that do not depend on methods or kinds of task.

The rules read plain data and skip values of an unexpected type, so that one mistake does not hide others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_recipes.errors import KeyPath, Problem, did_you_mean, format_value
from merge_recipes.gradients import is_gradient
from merge_recipes.language_rules import language_problems
from merge_recipes.mergekit import JOINT_METHODS, RANDOM_METHODS
from merge_recipes.queries import ENTRY, kind_of_item
from merge_recipes.read_yaml import Document
from merge_recipes.references import ModelReference, checkpoint_key
from merge_recipes.schema import REVOKED

ADDING = ("append", "replace")
"""Values of `on_update` with which a run adds new commits to a stream."""


@dataclass(frozen=True)
class RawEntry:
    """One item of `models`, with the reference and the name as far as they are valid."""

    path: KeyPath
    data: Mapping[str, Any]
    reference: ModelReference | None
    name: str | None


def mapping_at(document: Document, *path: str) -> dict[str, Any]:
    """Return the mapping at a key path, or an empty one."""
    value = document.data
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def items_at(document: Document, *path: str) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Return the mappings in the list at a key path, each with its key path."""
    values = mapping_at(document, *path[:-1]).get(path[-1])
    if not isinstance(values, list):
        return []
    return [((*path, index), value) for index, value in enumerate(values) if isinstance(value, dict)]


def reference_in(value: object) -> ModelReference | None:
    """Return a value as a reference, or None if it is not one."""
    parsed = ModelReference.try_parse(value) if isinstance(value, str) else None
    return parsed if isinstance(parsed, ModelReference) else None


def raw_entries(document: Document) -> list[RawEntry]:
    """Return the items of `models` that are mappings."""
    entries = []
    for path, data in items_at(document, "models"):
        reference = reference_in(data.get("model"))
        revoked = data.get("revoke")
        default = revoked + REVOKED if isinstance(revoked, str) else reference.short_name if reference else None
        name = data.get("name", default)
        entries.append(RawEntry(path, data, reference, name if isinstance(name, str) else None))
    return entries


def rule_problems(document: Document) -> list[Problem]:
    """Return one problem for each rule that the document breaks."""
    entries = raw_entries(document)
    return [
        *_order(document),
        *_queries(document),
        *([] if merges_at_once(mapping_at(document)) else bases_in_the_stream(document)),
        *_duplicate_entries(document, entries),
        *_revoked_entries(document, entries),
        *_tasks(document, entries),
        *_target(document, entries),
        *_parameter_shapes(document, entries),
    ]


def _order(document: Document) -> Iterator[Problem]:
    data = mapping_at(document)
    has_seed = data.get("seed") is not None
    if data.get("order") == "shuffled" and not has_seed:
        yield document.problem(("order",), "a shuffled order needs a seed", "add `seed: 42`")
    if data.get("order", "listed") == "listed" and has_seed and not _draws(data):
        hint = "remove `seed`, or write `order: shuffled`"
        yield document.problem(("seed",), "a seed has no effect with `order: listed`", hint, at_key=True)


def _draws(data: Mapping[str, Any]) -> bool:
    """Return True if the method may draw random numbers."""
    return data.get("form") == "joint" or _is_method_of(data, RANDOM_METHODS)


def merges_at_once(data: Mapping[str, Any]) -> bool:
    """Return True if the method can merge all models at once, so that the base model can be one of them."""
    if data.get("slices"):
        return True
    return data.get("form") == "joint" or (data.get("form") is None and _is_method_of(data, JOINT_METHODS))


def _is_method_of(data: Mapping[str, Any], names: Collection[str]) -> bool:
    """Return True if the recipe names one of these methods; its value can have any type."""
    method = data.get("merge_method")
    return isinstance(method, str) and method in names


def has_queries(document: Document) -> bool:
    """Return True if `models` has queries or collections."""
    return any(kind_of_item(item) != ENTRY for _, item in items_at(document, "models"))


def _queries(document: Document) -> Iterator[Problem]:
    if mapping_at(document).get("order") == "shuffled" and has_queries(document):
        message = "a stream with queries cannot be shuffled: models that are found later go to its end"
        yield document.problem(("order",), message, "remove `order` and `seed`")


def is_base(document: Document, entry: RawEntry) -> bool:
    """Return True if an item of `models` is the base model. Only methods that merge all at once allow it there."""
    base = reference_in(mapping_at(document).get("base_model"))
    return base is not None and entry.reference is not None and checkpoint_key(base) == checkpoint_key(entry.reference)


def bases_in_the_stream(document: Document) -> Iterator[Problem]:
    """Yield a problem for each item of `models` that is the base model."""
    for entry in raw_entries(document):
        if is_base(document, entry):
            message = "this is the base model: its task vector is zero"
            yield document.problem(
                (*entry.path, "model"), message, "remove this entry; the base model is always merged"
            )


def _duplicate_entries(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    seen: dict[str, RawEntry] = {}
    for entry in entries:
        if entry.name is None:
            continue
        if entry.name in seen:
            line = document.marks.value(seen[entry.name].path)[0]
            message = f"the name {format_value(entry.name)} is taken by the entry in line {line}"
            yield document.problem((*entry.path, "name"), message, "give the entry another `name:`")
        seen.setdefault(entry.name, entry)


def _revoked_entries(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    """Yield the problems of entries that take another one out of the merge."""
    merged: dict[str, RawEntry] = {}
    listed = {entry.name: entry for entry in reversed(entries) if not isinstance(entry.data.get("revoke"), str)}
    shuffled = mapping_at(document).get("order") == "shuffled"
    for entry in entries:
        revoked = entry.data.get("revoke")
        if not isinstance(revoked, str):
            if entry.name is not None:
                merged[entry.name] = entry
            continue
        place = (*entry.path, "revoke")
        if shuffled:
            yield document.problem(place, "a shuffled stream cannot revoke an entry", "write `order: listed`")
        if entry.data.get("parameters"):
            message = "an entry is revoked with the parameters it was merged with"
            yield document.problem((*entry.path, "parameters"), message, "remove `parameters`")
        origin = merged.pop(revoked, None)
        grows = has_queries(document) or _is_new_commit(entry, listed, revoked)
        if origin is None:
            if not grows:
                message = f"no earlier entry {format_value(revoked)} is merged here{did_you_mean(revoked, [*merged])}"
                yield document.problem(place, message)
        elif None not in (entry.reference, origin.reference) and origin.reference != entry.reference:
            message = f"the entry {format_value(revoked)} has the model {origin.reference}"
            yield document.problem((*entry.path, "model"), message, f"write `model: {origin.reference}`")
        if not merged and not grows and mapping_at(document).get("on_update") not in ADDING:
            yield document.problem(place, "no entry would be left", "remove the repo, or merge another model first")


def _is_new_commit(entry: RawEntry, listed: Mapping[str | None, RawEntry], revoked: str) -> bool:
    """Return True if a run may have added the revoked entry: a new commit of a listed model, as NAME-2."""
    name, _, number = revoked.rpartition("-")
    origin = listed.get(name)
    return number.isdigit() and origin is not None and origin.reference == entry.reference


def _tasks(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    names = [entry.name for entry in entries if entry.name is not None]
    seen: dict[str, KeyPath] = {}
    for path, task in items_at(document, "evaluate", "tasks"):
        name, model = task.get("name"), task.get("model")
        if isinstance(name, str):
            if name in seen:
                place = document.line_of((*seen[name], "name"))
                yield document.problem(
                    (*path, "name"), f"the name {format_value(name)} is taken by the task in {place}"
                )
            seen.setdefault(name, path)
        yield from _sample(document, path, task)
        yield from language_problems(document, path, task)
        if isinstance(model, str) and model not in names and not has_queries(document):
            message = f"the stream has no entry {format_value(model)}{did_you_mean(model, names)}"
            yield document.problem((*path, "model"), message)


def _sample(document: Document, path: KeyPath, task: Mapping[str, Any]) -> Iterator[Problem]:
    source = task.get("dataset")
    if isinstance(source, dict) and source.get("sample") == "first" and "seed" in source:
        key, hint = (*path, "dataset", "seed"), "remove `seed`, or write `sample: balanced`"
        yield document.problem(key, "a seed has no effect with `sample: first`", hint, at_key=True)


def _target(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    repo = mapping_at(document, "publish").get("repo")
    inputs = [entry.reference for entry in entries] + [reference_in(mapping_at(document).get("base_model"))]
    if isinstance(repo, str) and any(model is not None and model.path.lower() == repo.lower() for model in inputs):
        yield document.problem(
            ("publish", "repo"), f"{format_value(repo)} is an input of the merge: expected another repo"
        )


def _parameter_shapes(document: Document, entries: list[RawEntry]) -> Iterator[Problem]:
    for path, data in [((), mapping_at(document)), *((entry.path, entry.data) for entry in entries)]:
        parameters = data.get("parameters")
        if isinstance(parameters, dict):
            for name, value in parameters.items():
                yield from value_shape(document, (*path, "parameters", name), value)


SHAPES = "one value, a list of numbers (a gradient over the layers), or a list of {value, filter}"
"""The values that a parameter can have, for messages."""


def value_shape(document: Document, path: KeyPath, value: object) -> Iterator[Problem]:
    """Yield a problem unless a parameter's value is one value, a gradient or a filter list."""
    if isinstance(value, dict):
        yield document.problem(path, f"expected {SHAPES}; got a mapping")
    elif value is None:
        yield document.problem(path, "expected a value, got nothing (the value is empty)")
    elif isinstance(value, list):
        yield from _filter_list(document, path, value)


def _filter_list(document: Document, path: KeyPath, items: list[object]) -> Iterator[Problem]:
    if not items:
        yield document.problem(path, f"the list is empty: expected {SHAPES}")
    elif not is_gradient(items):
        for index, item in enumerate(items):
            yield from _filter_item(document, (*path, index), item)


def _filter_item(document: Document, path: KeyPath, item: object) -> Iterator[Problem]:
    if not isinstance(item, dict):
        yield document.problem(path, f"expected {{value: ..., filter: ...}}, got {format_value(item)}")
        return
    for key in item:
        if key not in {"value", "filter"}:
            message = f"unknown key{did_you_mean(key, ('value', 'filter'))}"
            yield document.problem((*path, key), message, at_key=True)
    if "value" not in item:
        yield document.problem(
            (*path, "value"), "this key is required: the value for the tensors that the filter selects"
        )
    elif item["value"] is None or (isinstance(item["value"], dict | list) and not is_gradient(item["value"])):
        message = f"expected one value, or a list of numbers; got {format_value(item['value'])}"
        yield document.problem((*path, "value"), message)
    name = item.get("filter", "*")
    if not isinstance(name, str) or not name:
        yield document.problem((*path, "filter"), f"expected part of a tensor's name, or *; got {format_value(name)}")
