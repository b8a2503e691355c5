"""Notes on a recipe: what is allowed, but perhaps a mistake."""

from __future__ import annotations

from collections.abc import Iterator

from merge_recipes.catalog import Catalog, catalog_problems
from merge_recipes.errors import Problem, RecipeError, format_value, nearest, without_repeats
from merge_recipes.folder_names import folder_notes
from merge_recipes.gradients import is_gradient
from merge_recipes.joint_form import JointForm, joint_form
from merge_recipes.language_task import LANGUAGE_KINDS
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.near_names import METRIC_SYNONYMS, other_name
from merge_recipes.overlaps import choice_overlap
from merge_recipes.parameters import selects_every_tensor
from merge_recipes.read_yaml import Document
from merge_recipes.references import checkpoint_key
from merge_recipes.rules import is_base, items_at, mapping_at, raw_entries
from merge_recipes.schema import StreamEntry
from merge_recipes.slice_rules import parts_to_check
from merge_recipes.tasks import candidates
from merge_recipes.tokenizer_rules import asks_for_base, unneeded_keys
from merge_recipes.weights import weight_notes


def check_recipe(loaded: LoadedRecipe, catalog: Catalog) -> list[str]:
    """Check the names and values of a recipe against the catalog.

    Returns:
        Notes on what is allowed, but perhaps a mistake.

    Raises:
        RecipeError: the recipe has names or values that the catalog does not allow; the error lists all of them.
    """
    documents = (*loaded.stages, loaded)
    problems = [problem for one in documents for problem in catalog_problems(one.document, catalog)]
    if problems:
        raise RecipeError(problems)
    return [str(note) for one in documents for note in notes(one, catalog)]


def notes(loaded: LoadedRecipe, catalog: Catalog) -> list[Problem]:
    """Return notes on what is allowed, but perhaps a mistake."""
    document = loaded.document
    found = [*loaded.notes, *_repeated_checkpoints(loaded), *_unreachable_filters(document)]
    method = loaded.recipe.merge_method
    form = joint_form(document, method, catalog)
    parameters_class = catalog.methods[method] if form is None else form.Parameters
    for part in parts_to_check(document):
        found += [*weight_notes(part, method, form, parameters_class), *_parameters_of_base(part, form)]
        found += [] if part is document else _unreachable_filters(part)
    for path, task in items_at(document, "evaluate", "tasks"):
        metrics = [] if task.get("kind") in LANGUAGE_KINDS else task.get("metrics", [])
        for index, metric in enumerate(metrics):
            match = other_name(metric, catalog.metrics, METRIC_SYNONYMS) or nearest(metric, catalog.metrics)
            if metric not in catalog.metrics and match is not None:
                message = f"{format_value(metric)} is looked up in the evaluate library; did you mean {match}?"
                found.append(document.problem((*path, "metrics", index), message))
    found += [*_tasks_without_entry(loaded), *_chosen_on_scored(loaded)]
    found += folder_notes(document, loaded.folder)
    found += unneeded_keys(document) if form is None and asks_for_base(document) else ()
    return sorted(without_repeats(found), key=lambda problem: (problem.line or 0, problem.column or 0))


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


def _chosen_on_scored(loaded: LoadedRecipe) -> Iterator[Problem]:
    overlap = choice_overlap(loaded.recipe)
    if overlap is not None:
        hint = "choose on another split: add a task with `validation: true`, and name it under `on`"
        yield loaded.document.problem(("read", "on"), overlap, hint)


def _tasks_without_entry(loaded: LoadedRecipe) -> Iterator[Problem]:
    if loaded.recipe.has_queries:
        return
    names = [entry.name for entry in loaded.recipe.entries]
    for index, task in enumerate(loaded.recipe.all_tasks):
        matches = candidates(task, names)
        if not task.validation and len(matches) != 1:
            which = f"several entries match its name: {', '.join(matches)}" if matches else "no entry matches its name"
            yield loaded.document.problem(
                ("evaluate", "tasks", index, "name"),
                f"this task belongs to no entry of the stream and is scored after every step ({which})",
                "if it belongs to an entry, add `model:` with the name of the entry",
            )
