"""What a recipe means: the recipe with all defaults filled in, and what it leaves unsaid, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from merge_recipes.catalog import Catalog
from merge_recipes.gradients import is_gradient
from merge_recipes.joint_form import JointCatalog, JointForm, joint_form
from merge_recipes.loaded import LoadedRecipe
from merge_recipes.mergekit import RANDOM_METHODS, UNUSED
from merge_recipes.notes import notes
from merge_recipes.parameters import parameter_fields, parameters_from, selects_every_tensor
from merge_recipes.schema import Recipe
from merge_recipes.tokenizer_text import tokenizer_sentences


def converted(loaded: LoadedRecipe, catalog: Catalog) -> tuple[list[str], dict[str, Any]]:
    """Return sentences about a recipe, and its keys with all defaults filled in.

    A recipe with these keys merges to the model that the given one merges to.

    Args:
        loaded: a recipe without problems.
        catalog: the installed methods.
    """
    recipe, method = loaded.recipe, loaded.recipe.merge_method
    form = joint_form(loaded.document, method, catalog)
    parameters_class = catalog.methods[method] if form is None else form.Parameters
    data = recipe.model_dump(mode="json", exclude_defaults=True)
    if not recipe.names_base:
        del data["base_model"]
    first: dict[str, Any] = {key: data.pop(key) for key in ("merge_method", "base_model") if key in data}
    stacked = form is not None and (recipe.slices or recipe.first_layers is not None)
    if not stacked and isinstance(catalog, JointCatalog) and method in catalog.joint and method in catalog.streams:
        first["form"] = "stream" if form is None else "joint"
    parameters = with_defaults(parameters_class, data.pop("parameters", {}))
    inputs = {"models": data.pop("models")}
    if stacked:
        inputs = {"slices": data.pop("slices", None) or [_only_slice(recipe)]}
    models = {**inputs, **({"parameters": parameters} if parameters else {})}
    if method in RANDOM_METHODS:
        data.setdefault("seed", 0)
    data = {key: data[key] for key in Recipe.model_fields if key in data}
    return list(_sentences(loaded, catalog, form)), {**first, **models, **data}


def _only_slice(recipe: Recipe) -> dict[str, Any]:
    """Return the slice of the first layers of all models."""
    found = [entry.model_dump(mode="json", exclude_defaults=True) for entry in recipe.entries]
    sources = [{"model": entry["model"], "layer_range": [0, recipe.first_layers]} for entry in found]
    given = [{"parameters": entry["parameters"]} if "parameters" in entry else {} for entry in found]
    return {"sources": [source | own for source, own in zip(sources, given, strict=True)]}


def with_defaults(parameters_class: type[BaseModel], given: dict[str, Any]) -> dict[str, Any]:
    """Return top-level parameters with the defaults of a method, where it has no other parameter in their place."""
    fields = {name: field for name, field in parameter_fields(parameters_class).items() if name != UNUSED}
    found = {name: _completed(value, fields.get(name)) for name, value in given.items()}
    missing = {name: field.default for name, field in fields.items() if name not in found and _has_default(field)}
    plain = {name: value for name, value in found.items() if not isinstance(value, list)}
    try:
        parameters_from(parameters_class, {**plain, **missing})
    except ValidationError as error:
        # A required parameter may be that of each model.
        if any(details["type"] != "missing" for details in error.errors(include_url=False)):
            return found
    return {**found, **missing}


def _has_default(field: FieldInfo) -> bool:
    return not field.is_required() and isinstance(field.default, bool | int | float | str)


def _completed(value: Any, field: FieldInfo | None) -> Any:
    """Return a filter list with the default for all other tensors as its last item."""
    if field is None or not isinstance(value, list) or is_gradient(value) or not _has_default(field):
        return value
    return value if any(map(selects_every_tensor, value)) else [*value, {"value": field.default}]


def _sentences(loaded: LoadedRecipe, catalog: Catalog, form: JointForm | None) -> Iterator[str]:
    recipe = loaded.recipe
    count = len(recipe.entries)
    if form is None:
        yield f"order: {count} checkpoints are merged one after another, in this order"
    else:
        yield f"order: {count} {'model is' if count == 1 else 'models are'} merged at once"
    yield f"base model: {_base(recipe, form)}"
    if recipe.slices:
        yield from slice_table(recipe)
    elif recipe.first_layers is not None:
        yield f"layers: the first {recipe.first_layers} layers of every model; `hubmerge plan` checks the number"
    else:
        yield "layers: all layers of every model"
    yield from tokenizer_sentences(recipe, joint=form is not None)
    result = recipe.out_dtype or recipe.dtype or f"the dtype of {recipe.base_model}"
    before = f"rounded to {recipe.dtype} before the arithmetic" if recipe.dtype else "as they are stored"
    yield f"dtype: weights are read {before}; the merged model is written in {result}"
    for note in notes(loaded, catalog):
        yield f"note, line {note.line}: {note.message}"


def slice_table(recipe: Recipe) -> Iterator[str]:
    """Yield a line for each slice: its layers in the merged model, and the layers of each source."""
    first = 0
    for piece in recipe.slices:
        sources = (f"{one.model} {one.layers[0]} to {one.layers[-1]}" for one in piece.sources)
        yield f"layers {first} to {first + piece.length - 1}: from {', '.join(sources)}"
        first += piece.length


def _base(recipe: Recipe, form: JointForm | None) -> str:
    if not recipe.names_base:
        return "none; the first model lends config, tokenizer and names of tensors, and is merged like the others"
    name = recipe.base_model
    if form is not None and form.base == "model":
        return f"{name}; it is merged like any other model" if recipe.lists_base else f"{name}; it is not merged"
    if form is not None and form.most == 1:
        return f"{name}; the merge starts from it"
    return f"{name}; task vectors start from it"
