"""Loading of recipes: reading, validation, and all problems in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from merge_recipes.catalog import Catalog, catalog_problems
from merge_recipes.errors import KeyPath, Problem, RecipeError, without_repeats
from merge_recipes.include import Inclusion, insert_included
from merge_recipes.joint_form import lent_base
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.mergekit_document import read_mergekit
from merge_recipes.mergekit_references import Stages
from merge_recipes.read_rules import read_problems
from merge_recipes.read_yaml import Document, read_documents, read_text
from merge_recipes.rules import rule_problems
from merge_recipes.schema import Recipe
from merge_recipes.shorthands import expanded
from merge_recipes.slice_rules import slice_problems
from merge_recipes.stage_rules import merge_order, named_documents, stage_problems, stages_of
from merge_recipes.task_files import insert_definitions
from merge_recipes.tokenizer_rules import tokenizer_problems
from merge_recipes.validate import validate


def load_recipe(path: str | Path, catalog: Catalog | None = None) -> LoadedRecipe:
    """Read and check a recipe. Local paths become absolute, relative to the recipe's folder.

    Args:
        path: the file of the recipe.
        catalog: the installed methods, kinds of task and metrics; with it, the error includes the problems that
            `check_recipe` reports.

    Raises:
        RecipeError: the recipe has mistakes; the error lists all of them.
    """
    path = Path(path)
    return _load(read_documents(read_text(path), str(path)), path, catalog, is_file=True)


def parse_recipe(text: str, *, path: str | Path = "recipe.yaml", catalog: Catalog | None = None) -> LoadedRecipe:
    """Read and check a recipe from its text, which cannot include files.

    Args:
        text: the YAML text.
        path: the name of the recipe in messages; no file is opened. Relative local paths start in its folder.
        catalog: the installed methods, kinds of task and metrics, as for `load_recipe`.

    Raises:
        RecipeError: the recipe has mistakes; the error lists all of them.
    """
    path = Path(path)
    return _load(read_documents(text, str(path)), path, catalog, is_file=False)


def _load(documents: Sequence[Document], path: Path, catalog: Catalog | None, *, is_file: bool) -> LoadedRecipe:
    """Check the documents of a file, and return the one of the result."""
    if len(documents) == 1:
        return _check(_with_files(documents[0], path if is_file else None, catalog), path, catalog)[0]
    named, problems = named_documents(documents, path.parent if is_file else None)
    stages = stages_of(named)
    loaded, used = [], []
    for one in named:
        try:
            result, names = _check(_with_files(one.document, path if is_file else None, catalog), path, catalog, stages)
        except RecipeError as error:
            problems += error.problems
        else:
            loaded.append(result)
            used.append(names)
    if problems:
        raise RecipeError(without_repeats(problems))
    order, problems = merge_order(named, used)
    if order is None:
        raise RecipeError(problems)
    problems += [problem for place in order.before for problem in stage_problems(named[place])]
    if problems:
        raise RecipeError(problems)
    before = tuple(replace(loaded[place], stage=named[place].name) for place in order.before)
    result = loaded[order.result]
    notes = [named[place].problem("the result does not use this document: it is not merged") for place in order.unused]
    recipe = result.recipe.with_stages({str(one.stage): one.recipe for one in before})
    return replace(result, recipe=recipe, stages=before, notes=(*notes, *result.notes))


def _with_files(document: Document, path: Path | None, catalog: Catalog | None) -> Inclusion:
    """Return a document with the tasks and the definitions of tasks that are in files of their own."""
    return insert_definitions(insert_included(document, path), path, catalog)


def _check(
    inclusion: Inclusion, path: Path, catalog: Catalog | None, stages: Stages | None = None
) -> tuple[LoadedRecipe, Mapping[str, KeyPath]]:
    """Return a document's recipe, and the stages that it refers to."""
    reading = read_mergekit(inclusion.document, stages)
    document = reading.document
    lent = lent_base(document.data)
    recipe, problems = validate(Recipe, document, {} if lent is None else {"base_model": lent})
    if isinstance(document.data, dict):
        problems += [*rule_problems(document), *slice_problems(document), *tokenizer_problems(document)]
        problems += read_problems(document)
        if catalog is not None:
            problems += catalog_problems(document, catalog)
    problems += reading.problems
    problems = [problem for problem in problems if not inclusion.hides(problem)]
    if problems or document.problems or recipe is None:
        raise RecipeError(_without_repeats(document.problems, problems))
    recipe = recipe.model_copy(update={"parameters": expanded(recipe.merge_method, recipe.parameters)})
    recipe = (recipe if lent is None else recipe.without_base()).with_first_layers(reading.layers)
    return LoadedRecipe(recipe.within(path.parent.absolute()), document, path, reading.notes), reading.used


def _without_repeats(unread: Sequence[Problem], others: Sequence[Problem]) -> list[Problem]:
    """Return the problems without repetitions; at a place that could not be read, only the problems of reading."""
    places = {(problem.file, problem.line, problem.column) for problem in unread}
    found = [*unread, *(problem for problem in others if (problem.file, problem.line, problem.column) not in places)]
    return without_repeats(found)
