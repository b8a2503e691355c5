"""Checks of a recipe against a catalog of merge methods, parameters, kinds of task and metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from merge_recipes.canonical import canonical_json
from merge_recipes.errors import KeyPath, Problem, RecipeError, did_you_mean, format_value, nearest
from merge_recipes.gradients import is_gradient, single_values
from merge_recipes.joint_form import JointForm, joint_form, joint_problems, no_joint_form
from merge_recipes.license_rules import license_problems
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.mergekit import OTHER_METHODS
from merge_recipes.near_names import KIND_SYNONYMS, METRIC_SYNONYMS, other_name, suggestion
from merge_recipes.parameters import (
    is_per_entry,
    is_per_tensor,
    parameter_fields,
    parameters_from,
    selects_every_tensor,
)
from merge_recipes.read_yaml import Document
from merge_recipes.references import checkpoint_key
from merge_recipes.rules import (
    bases_in_the_stream,
    is_base,
    items_at,
    mapping_at,
    raw_entries,
    value_shape,
)
from merge_recipes.schema import StreamEntry
from merge_recipes.tasks import candidates
from merge_recipes.validate import number_or_word, value_message
from merge_recipes.weights import weight_notes, weight_problems

_TOP: KeyPath = ("parameters",)
_MAX_COMBINATIONS = 5_000


class Catalog(Protocol):
    """The merge methods, kinds of task and metrics that a recipe can name."""

    @property
    def methods(self) -> Mapping[str, type[BaseModel]]:
        """The parameters class of each merge method, by name; of a name with two forms, that of the stream.

        The joint forms are in `merge_recipes.joint_form.JointCatalog`.
        """

    @property
    def task_kinds(self) -> Collection[str]:
        """The kinds of task."""

    @property
    def metrics(self) -> Collection[str]:
        """The metrics of hubmerge. Recipes can name others, which are looked up in the evaluate library."""


def check_recipe(loaded: LoadedRecipe, catalog: Catalog) -> list[str]:
    """Check the names and values of a recipe against the catalog.

    Returns:
        Notes on what is allowed, but perhaps a mistake.

    Raises:
        RecipeError: the recipe has names or values that the catalog does not allow; the error lists all of them.
    """
    problems = catalog_problems(loaded.document, catalog)
    if problems:
        raise RecipeError(problems)
    return [str(note) for note in notes(loaded, catalog)]


def catalog_problems(document: Document, catalog: Catalog) -> list[Problem]:
    """Return one problem for each name or value that the catalog does not allow."""
    problems = [*_task_kinds(document, catalog), *license_problems(document)]
    method = mapping_at(document).get("merge_method")
    if isinstance(method, str) and method:
        parameters_class = catalog.methods.get(method)
        form = joint_form(document, method, catalog)
        if parameters_class is None:
            problems.append(_unknown_method(document, method, catalog))
        elif form is not None:
            problems += joint_problems(document, method, form)
            problems += weight_problems(document, method, form, form.Parameters)
            problems += _ParameterCheck(document, method, form.Parameters, base_counts=form.base == "model").problems()
        else:
            problems += [*no_joint_form(document, method, catalog), *bases_in_the_stream(document)]
            problems += _ParameterCheck(document, method, parameters_class).problems()
            problems += weight_problems(document, method, None, parameters_class)
    return problems


def _unknown_method(document: Document, method: str, catalog: Catalog) -> Problem:
    if method in OTHER_METHODS:
        known = ", ".join(sorted(catalog.methods))
        message = f"mergekit's method {method} is not supported; expected one of: {known}"
    else:
        message = f"there is no merge method {format_value(method)}{did_you_mean(method, catalog.methods)}"
    return document.problem(("merge_method",), message)


def _task_kinds(document: Document, catalog: Catalog) -> Iterator[Problem]:
    for path, task in items_at(document, "evaluate", "tasks"):
        kind = task.get("kind")
        if isinstance(kind, str) and kind and kind not in catalog.task_kinds:
            message = (
                f"there is no kind of task {format_value(kind)}{suggestion(kind, catalog.task_kinds, KIND_SYNONYMS)}"
            )
            yield document.problem((*path, "kind"), message)


class _ParameterCheck:
    """Check of the parameters of a recipe and its entries, with their filter lists, against a parameters class."""

    def __init__(
        self, document: Document, method: str, parameters_class: type[BaseModel], *, base_counts: bool = False
    ) -> None:
        self._base_counts = base_counts
        self._document = document
        self._method = method
        self._class = parameters_class
        self._fields = parameter_fields(parameters_class)

    def problems(self) -> list[Problem]:
        """Return the problems of single values or, if there are none, of their combinations."""
        top = _parameters_in(mapping_at(self._document))
        entries = [
            ((*entry.path, "parameters"), _parameters_in(entry.data))
            for entry in raw_entries(self._document)
            if self._base_counts or not is_base(self._document, entry)
        ]
        found: list[Problem] = []
        readable = True
        for path, parameters in [(_TOP, top), *entries]:
            for name, value in parameters.items():
                readable &= not any(value_shape(self._document, (*path, name), value))
                found += self._parameter_problems((*path, name), name, value, of_entry=path != _TOP)
        return [*self._combination_problems(top, entries)] if readable and not found else found

    def _parameter_problems(self, path: KeyPath, name: str, value: Any, *, of_entry: bool = False) -> Iterator[Problem]:
        field = self._fields.get(name)
        if field is None:
            message = f"the method {self._method} has no parameter {name}{did_you_mean(name, self._fields)}"
            # In YAML, `{alpha: 0,5}` has the keys alpha and 5.
            hint = "write decimal numbers with a point: 0.5" if name.isdigit() else None
            yield self._document.problem(path, message, hint, at_key=True)
        elif of_entry and not is_per_entry(field):
            message = "this parameter has one value for the whole stream"
            yield self._document.problem(path, message, "write it under the top-level parameters", at_key=True)
        elif isinstance(value, list) and not is_per_tensor(field):
            yield self._document.problem(path, "this parameter has one value for all tensors, got a list")
        elif not any(value_shape(self._document, path, value)):
            for place, single in single_values(path, value):
                yield from self._value_problems(place, name, single)

    def _value_problems(self, path: KeyPath, name: str, value: Any) -> Iterator[Problem]:
        for details in self._errors({name: value}):
            if details["loc"][:1] == (name,) and details["type"] != "missing":
                plain = self._document.marks.plain.get(path)
                message, hint = value_message(details, plain, alternatives=number_or_word(self._class, name))
                yield self._document.problem(path, message, hint)

    def _errors(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            parameters_from(self._class, values)
        except ValidationError as error:
            return [*error.errors(include_url=False)]
        return []

    def _combination_problems(
        self, top: Mapping[str, Any], entries: list[tuple[KeyPath, dict[str, Any]]]
    ) -> Iterator[Problem]:
        """Check required parameters and rules between parameters for the combinations of values that tensors have."""
        different = {canonical_json(parameters): (path, parameters) for path, parameters in reversed(entries)}
        combinations = (
            (path if parameters else _TOP, values)
            for path, parameters in different.values()
            for values in _combinations(parameters, top)
        )
        reported: set[str] = set()
        for path, values in islice(combinations, _MAX_COMBINATIONS):
            for details in self._errors(values):
                problem = self._combination_problem(details, path)
                if str(problem) not in reported:
                    reported.add(str(problem))
                    yield problem

    def _combination_problem(self, details: Any, path: KeyPath) -> Problem:
        if details["type"] != "missing":
            message, hint = value_message(details, None)
            return self._document.problem((*path, *details["loc"]), message, hint)
        name = str(details["loc"][-1])
        field: FieldInfo | None = self._fields.get(name)
        meaning = f": {field.description}" if field is not None and field.description else ""
        message = f"the method {self._method} needs this parameter, for every entry and every tensor{meaning}"
        return self._document.problem((*path, name), message)


def _parameters_in(data: Mapping[str, Any]) -> dict[str, Any]:
    value = data.get("parameters")
    return value if isinstance(value, dict) else {}


def _combinations(*levels: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield combinations of values: first without filters, then each filtered value with the others' defaults."""
    plain: dict[str, Any] = {}
    filtered: list[tuple[str, Any]] = []
    for level in levels:
        for name, value in level.items():
            if name in plain:
                continue
            for item in value if isinstance(value, list) and not is_gradient(value) else [{"value": value}]:
                single = [number for _, number in single_values((), item["value"])]
                if selects_every_tensor(item):
                    plain[name] = single[0]
                    filtered += [(name, number) for number in single[1:]]
                    break
                filtered += [(name, number) for number in single]
    yield plain
    for name, value in filtered:
        yield {**plain, name: value}


def notes(loaded: LoadedRecipe, catalog: Catalog) -> list[Problem]:
    """Return notes on what is allowed, but perhaps a mistake."""
    document = loaded.document
    found = [*loaded.notes, *_repeated_checkpoints(loaded), *_unreachable_filters(document)]
    method = loaded.recipe.merge_method
    form = joint_form(document, method, catalog)
    parameters_class = catalog.methods[method] if form is None else form.Parameters
    found += [*weight_notes(document, method, form, parameters_class), *_parameters_of_base(document, form)]
    for path, task in items_at(document, "evaluate", "tasks"):
        for index, metric in enumerate(task.get("metrics", [])):
            match = other_name(metric, catalog.metrics, METRIC_SYNONYMS) or nearest(metric, catalog.metrics)
            if metric not in catalog.metrics and match is not None:
                message = f"{format_value(metric)} is looked up in the evaluate library; did you mean {match}?"
                found.append(document.problem((*path, "metrics", index), message))
    found += _tasks_without_entry(loaded)
    return sorted(found, key=lambda problem: (problem.line or 0, problem.column or 0))


def _repeated_checkpoints(loaded: LoadedRecipe) -> Iterator[Problem]:
    seen: dict[tuple[str, ...], int] = {}
    for index, entry in enumerate(loaded.recipe.models):
        if not isinstance(entry, StreamEntry) or entry.revoke is not None:
            continue
        earlier = seen.setdefault(checkpoint_key(entry.model), index)
        if earlier != index:
            line = loaded.marks.value(("models", earlier))[0]
            message = f"this checkpoint is merged twice: it is also in line {line}"
            yield loaded.document.problem(("models", index, "model"), message)


def _parameters_of_base(document: Document, form: JointForm | None) -> Iterator[Problem]:
    if form is not None and form.base != "model":
        for entry in raw_entries(document):
            if entry.data.get("parameters") and is_base(document, entry):
                message = "parameters of the base model have no effect: task vectors start from it"
                yield document.problem((*entry.path, "parameters"), message, at_key=True)


def _unreachable_filters(document: Document) -> Iterator[Problem]:
    levels = [((), mapping_at(document)), *((entry.path, entry.data) for entry in raw_entries(document))]
    for path, data in levels:
        for name, value in (data.get("parameters") or {}).items():
            filters = isinstance(value, list) and not is_gradient(value)
            for index in range(len(value) - 1 if filters else 0):
                if selects_every_tensor(value[index]):
                    place = (*path, "parameters", name, index)
                    yield document.problem(place, "this item selects every tensor: the items after it have no effect")
                    break


def _tasks_without_entry(loaded: LoadedRecipe) -> Iterator[Problem]:
    if loaded.recipe.has_queries:
        return
    names = [entry.name for entry in loaded.recipe.entries]
    tasks = loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ()
    for index, task in enumerate(tasks):
        matches = candidates(task, names)
        if len(matches) != 1:
            which = f"several entries match its name: {', '.join(matches)}" if matches else "no entry matches its name"
            yield loaded.document.problem(
                ("evaluate", "tasks", index, "name"),
                f"this task belongs to no entry of the stream and is scored after every step ({which})",
                "if it belongs to an entry, add `model:` with the name of the entry",
            )
