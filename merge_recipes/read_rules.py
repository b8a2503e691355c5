"""Checks of the key `read`: its task, its metric, and what each of its methods reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from merge_recipes.errors import KeyPath, Problem, did_you_mean, format_value, key_text, nearest
from merge_recipes.kind_defaults import kind_defaults
from merge_recipes.language_task import HARNESS_KIND
from merge_recipes.read_yaml import Document
from merge_recipes.rewriting import Rewriting
from merge_recipes.rules import items_at, mapping_at, value_shape

CHOOSE = ("read", "choose")

NO_NUMBERS = ("confusion",)
"""Metrics that are not one number."""


@runtime_checkable
class StateCatalog(Protocol):
    """A catalog that knows which methods read the states of which."""

    def reading_problem(
        self, merged: str, parameters: Mapping[str, Any], method: str, own: Mapping[str, Any]
    ) -> tuple[str, str | None, str | None] | None:
        """Return why a method cannot read the states of another one; None if it can.

        Args:
            merged: the method of the recipe.
            parameters: its parameters.
            method: the method that reads.
            own: its parameters.

        Returns:
            Message, hint, and the parameter that is the reason, if it is one.
        """


def read_problems(document: Document) -> Iterator[Problem]:
    """Yield the problems of `read` that do not depend on methods."""
    tasks = {task["name"]: (path, task) for path, task in items_at(document, "evaluate", "tasks") if _has_name(task)}
    read, data = mapping_at(document, "read"), mapping_at(document)
    for name, (path, task) in tasks.items():
        if task.get("validation") is True and read.get("on") != name:
            message = "this task is for validation only, and `read` does not name it: it is never scored"
            hint = "remove `validation: true`, or choose a read-out on it: read: {choose: [...], on: " + name + "}"
            yield document.problem((*path, "validation"), message, hint)
    if not read:
        return
    if data.get("slices") or data.get("form") == "joint":
        message = "a merge of all models at once has no state, and `read` chooses what is read out of one"
        yield document.problem(("read",), message, "remove `read`", at_key=True)
    choose = read.get("choose")
    if isinstance(choose, list) and len(choose) == 1:
        message = "a choice needs two read-outs or more, got one"
        yield document.problem(CHOOSE, message, "add another one, or write it as `merge_method` and `parameters`")
    yield from _candidates(document)
    name = read.get("on")
    if isinstance(name, str) and name not in tasks:
        message = f"there is no task {format_value(name)}{did_you_mean(name, tasks)}"
        hint = "add the task to `evaluate`, with `validation: true` if it only serves this choice"
        yield document.problem(("read", "on"), message, hint)
    elif isinstance(name, str):
        yield from _metric(document, read, tasks[name][1])


def _has_name(task: Mapping[str, Any]) -> bool:
    return isinstance(task.get("name"), str)


def _candidates(document: Document) -> Iterator[Problem]:
    """Yield the problems of read-outs that are there twice, and of values that no parameter can have."""
    seen: dict[str, KeyPath] = {}
    for path, item in items_at(document, *CHOOSE):
        values = item.get("parameters") or {}
        if not isinstance(values, dict):
            continue
        for key, value in values.items():
            yield from value_shape(document, (*path, "parameters", key), value)
        text = repr((item.get("method"), sorted(values.items(), key=repr)))
        if text in seen:
            yield document.problem(path, f"this read-out is given already, as {key_text(seen[text])}", "remove it")
        seen.setdefault(text, path)


def _metric(document: Document, read: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[Problem]:
    kind, metric = str(task.get("kind")), read.get("metric")
    metrics = {"metrics": ["accuracy"], **kind_defaults(kind, task), **task}["metrics"]
    if not isinstance(metrics, list | tuple) or kind == HARNESS_KIND:
        return  # the metrics of a task of this kind are known when it is prepared
    known = [one for one in metrics if isinstance(one, str)]
    if isinstance(metric, str) and metric not in known:
        message = f"the task {task['name']} has no metric {format_value(metric)}{did_you_mean(metric, known)}"
        hint = None if nearest(metric, known) else f"add it to the `metrics` of the task: {metric}"
        yield document.problem(("read", "metric"), message, hint)
    elif metric in NO_NUMBERS or (metric is None and known and all(one in NO_NUMBERS for one in known)):
        place = ("read", "metric") if metric is not None else ("read", "on")
        message = f"the task {task['name']} has no metric that is one number, and a choice needs one"
        if metric is not None:
            message = f"{metric} is not one number, and a choice needs one"
        yield document.problem(place, message, "name another metric of the task, such as accuracy")


def candidates_to_check(document: Document) -> Iterator[tuple[KeyPath, str, Document]]:
    """Yield place and method of each read-out, and a document whose merge method it is."""
    for path, item in items_at(document, *CHOOSE):
        method = item.get("method")
        if not isinstance(method, str) or not method:
            continue
        parameters = item.get("parameters")
        data = {"merge_method": method, "parameters": parameters if isinstance(parameters, dict) else {}, "models": []}
        rewriting = Rewriting(document, data)
        rewriting.move((*path, "parameters"), ("parameters",))
        rewriting.move((*path, "method"), ("merge_method",))
        yield path, method, rewriting.rewritten()


def state_problem(document: Document, path: KeyPath, method: str, catalog: object) -> Iterator[Problem]:
    """Yield a problem if a read-out cannot read the states of the recipe's method."""
    if not isinstance(catalog, StateCatalog):
        return
    merged, parameters = mapping_at(document).get("merge_method"), mapping_at(document, "parameters")
    item = next(value for place, value in items_at(document, *CHOOSE) if place == path)
    own = item.get("parameters")
    if not isinstance(merged, str):
        return
    found = catalog.reading_problem(merged, parameters, method, own if isinstance(own, dict) else {})
    if found is not None:
        message, hint, key = found
        place = (*path, "method") if key is None else (*path, "parameters", key)
        yield document.problem(place, message, hint)
