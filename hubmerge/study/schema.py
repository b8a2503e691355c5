"""Keys of a study, and its reader, which reports all problems at once with their lines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from merge_recipes import Catalog, LoadedRecipe, Problem, RecipeError, load_recipe
from merge_recipes.errors import did_you_mean
from merge_recipes.parameters import parameter_fields, parameters_from
from merge_recipes.read_yaml import Document, read_document, read_text
from merge_recipes.record import Record, Text
from merge_recipes.schema_types import Parameters
from merge_recipes.shuffling import shuffled_places
from merge_recipes.validate import number_or_word, validate, value_message


class Variant(Record):
    """Merge method with its parameters; lists of plain values are swept."""

    method: Text
    """The merge method."""
    name: Text | None = None
    """Name in tables and plots; the method and its parameters if not given."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the method; a list of plain values gives a cell for each value."""
    round_to: Literal["float32"] | None = None
    """Dtype to which the accumulated delta is rounded after every step."""
    perturb: tuple[int, ...] = ()
    """Seeds of relative changes of the first accumulated delta by 1e-12, one cell for each seed."""

    @property
    def fixed(self) -> dict[str, Any]:
        """Parameters that are not swept."""
        return {name: value for name, value in self.parameters.items() if not is_sweep(value)}

    @property
    def swept(self) -> dict[str, list[Any]]:
        """Swept parameters with their values."""
        return {name: value for name, value in self.parameters.items() if isinstance(value, list) and is_sweep(value)}

    @property
    def series(self) -> str:
        """Name of the variant, which all its cells share."""
        if self.name is not None:
            return self.name
        shown = [f"{name} {value}" for name, value in self.fixed.items() if not isinstance(value, list)]
        return ", ".join([self.method, *shown])

    def points(self) -> Iterator[dict[str, Any]]:
        """Yield every combination of the swept values, an empty one if nothing is swept."""
        for values in itertools.product(*self.swept.values()):
            yield dict(zip(self.swept, values, strict=True))


def is_sweep(value: object) -> bool:
    """Return True if a value is a list of plain values, not a filter list."""
    return isinstance(value, list) and bool(value) and not any(isinstance(item, dict) for item in value)


class Study(Record):
    """One stream and the ways to merge it."""

    recipe: Text
    """Recipe with the stream and its tasks; a path relative to the folder of the study."""
    methods: tuple[Variant, ...] = Field(min_length=1)
    """Variants to compare."""
    tasks: tuple[int, ...] = ()
    """Numbers of entries to merge, the first ones as listed; all entries if not given."""
    orders: int = Field(default=0, ge=0, le=10_000)
    """Number of different shuffled orders; 0 for the order of the recipe alone. Short streams have fewer."""
    first_seed: int = Field(default=0, ge=0)
    """Seed of the first shuffled order; the next ones follow."""
    score: Literal["every", "last"] = "every"
    """Steps after which the merged model is scored; backward transfer needs `every`."""

    def seeds(self, tasks: int) -> tuple[int | None, ...]:
        """Return the seeds of the orders of so many entries, each order once; None for the order of the recipe."""
        if not self.orders:
            return (None,)
        found: dict[tuple[int, ...], int] = {}
        wanted, seed = min(self.orders, math.factorial(tasks)), self.first_seed
        while len(found) < wanted:
            found.setdefault(shuffled_places(tasks, seed), seed)
            seed += 1
        return tuple(found.values())


@dataclass(frozen=True)
class LoadedStudy:
    """Checked study with its checked recipe."""

    study: Study
    recipe: LoadedRecipe
    document: Document
    path: Path


def load_study(path: str | Path, catalog: Catalog) -> LoadedStudy:
    """Read a study and its recipe.

    Raises:
        RecipeError: all problems of the study, or all problems of its recipe.
    """
    path = Path(path)
    document = read_document(read_text(path), str(path))
    study, problems = validate(Study, document)
    found = [*document.problems, *problems]
    if study is None or found:
        raise RecipeError(found)
    recipe = load_recipe(path.parent / Path(study.recipe).expanduser(), catalog)
    found += _broken_rules(study, recipe, document, catalog)
    if found:
        raise RecipeError(found)
    return LoadedStudy(study, recipe, document, path)


def _broken_rules(study: Study, recipe: LoadedRecipe, document: Document, catalog: Catalog) -> Iterator[Problem]:
    for index, variant in enumerate(study.methods):
        place = ("methods", index)
        parameters_class = catalog.methods.get(variant.method)
        if parameters_class is None:
            message = f"there is no merge method {variant.method!r}{did_you_mean(variant.method, catalog.methods)}"
            yield document.problem((*place, "method"), message)
        else:
            yield from _parameters(variant, parameters_class, document, place)
    if recipe.stages:
        message = f"the recipe has {len(recipe.stages) + 1} documents, a study needs a recipe of one"
        yield document.problem(("recipe",), message, "merge the stages first, and name their folders")
    if any(entry.revoke is not None for entry in recipe.recipe.entries):
        message = "the recipe revokes an entry, which a study of other orders and methods cannot do"
        yield document.problem(("recipe",), message, "use a recipe without this entry and the line that revokes it")
    if recipe.recipe.tokenizer_options is not None:
        message = "the recipe names a tokenizer, and a study compares models with the vocabulary of the base model"
        yield document.problem(("recipe",), message, "use a recipe without `tokenizer` and `tokenizer_source`")
    for index, count in enumerate(study.tasks):
        entries = len(recipe.recipe.entries)
        if not recipe.recipe.has_queries and not 1 <= count <= entries:
            message = f"expected a number of entries between 1 and {entries}, the length of the stream; got {count}"
            yield document.problem(("tasks", index), message)
    names = [variant.series for variant in study.methods]
    for index, name in enumerate(names):
        if name in names[:index]:
            message = f"two variants have the name {name!r}"
            yield document.problem(("methods", index), message, "set `name` of one of them")


def _parameters(
    variant: Variant, parameters_class: type[BaseModel], document: Document, place: tuple[str | int, ...]
) -> Iterator[Problem]:
    fields = parameter_fields(parameters_class)
    for name in variant.parameters:
        if name not in fields:
            message = f"the method {variant.method} has no parameter {name!r}{did_you_mean(name, fields)}"
            yield document.problem((*place, "parameters", name), message, at_key=True)
    reported: set[tuple[Any, str]] = set()
    for point in variant.points():
        for values in _plain({**variant.fixed, **point}):
            for details in _errors(parameters_class, {n: v for n, v in values.items() if n in fields}):
                alternatives = number_or_word(parameters_class, str(details["loc"][0])) if details["loc"] else None
                message, hint = value_message(details, None, alternatives=alternatives)
                if (details["loc"], message) not in reported:
                    reported.add((details["loc"], message))
                    yield document.problem((*place, "parameters", *details["loc"][:1]), message, hint)


def _plain(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the plain values, then those with each item of a filter list."""
    yield {name: value for name, value in values.items() if not isinstance(value, list)}
    for name, value in values.items():
        for item in value if isinstance(value, list) else ():
            yield {**{n: v for n, v in values.items() if not isinstance(v, list)}, name: item.get("value")}


def _errors(parameters_class: type[BaseModel], values: Mapping[str, Any]) -> list[Any]:
    try:
        parameters_from(parameters_class, values)
    except ValidationError as error:
        return [*error.errors(include_url=False)]
    return []
