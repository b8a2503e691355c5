"""Checks of a recipe against a catalog of merge methods, parameters, kinds of task and metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from merge_recipes.canonical import canonical_json
from merge_recipes.errors import KeyPath, Problem, did_you_mean, format_value, without_repeats
from merge_recipes.gradients import is_gradient, single_values
from merge_recipes.joint_form import JointForm, joint_form, joint_problems, no_joint_form
from merge_recipes.license_rules import license_problems
from merge_recipes.mergekit import OTHER_METHODS
from merge_recipes.near_names import KIND_SYNONYMS, suggestion
from merge_recipes.parameters import (
    is_per_entry,
    is_per_tensor,
    parameter_fields,
    parameters_from,
    selects_every_tensor,
)
from merge_recipes.read_rules import candidates_to_check, state_problem
from merge_recipes.read_yaml import Document
from merge_recipes.rules import (
    bases_in_the_stream,
    is_base,
    items_at,
    mapping_at,
    raw_entries,
    value_shape,
)
from merge_recipes.slice_rules import bases_of_slices, parts_to_check
from merge_recipes.tokenizer_rules import needs_joint_form
from merge_recipes.validate import number_or_word, value_message
from merge_recipes.weights import weight_problems

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
            problems += without_repeats(_joint_problems(document, method, form))
        else:
            problems += [*no_joint_form(document, method, catalog), *_listed_bases(document)]
            problems += needs_joint_form(document, method)
            problems += _ParameterCheck(document, method, parameters_class).problems()
            problems += weight_problems(document, method, None, parameters_class)
    return [*problems, *_read_outs(document, catalog)]


def _read_outs(document: Document, catalog: Catalog) -> Iterator[Problem]:
    """Check the methods of `read`, their parameters, and that they read the states of the recipe's method."""
    for path, method, candidate in candidates_to_check(document):
        parameters_class = catalog.methods.get(method)
        if parameters_class is None:
            message = f"there is no merge method {format_value(method)}{did_you_mean(method, catalog.methods)}"
            yield document.problem((*path, "method"), message)
            continue
        unreadable = list(state_problem(document, path, method, catalog))
        yield from unreadable or _ParameterCheck(candidate, method, parameters_class).problems()


def _listed_bases(document: Document) -> Iterator[Problem]:
    return bases_in_the_stream(document) if "slices" not in mapping_at(document) else iter(())


def _joint_problems(document: Document, method: str, form: JointForm) -> Iterator[Problem]:
    """Check the parameters and the number of models of a method that merges all at once, slice by slice."""
    for part in parts_to_check(document):
        yield from joint_problems(part, method, form)
        yield from weight_problems(part, method, form, form.Parameters)
        yield from _ParameterCheck(part, method, form.Parameters, base_counts=form.base == "model").problems()
        if part is not document and form.base != "model":
            yield from bases_of_slices(part, method)


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
