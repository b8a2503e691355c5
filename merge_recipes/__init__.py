"""The recipe language of hubmerge: reading, checking and locking recipes, without torch and without the network.

Each name is loaded when it is first used.

>>> from merge_recipes import parse_recipe
>>> loaded = parse_recipe('''
... merge_method: opcm
... base_model: openai/clip-vit-base-patch32
... models:
...   - model: tanganke/clip-vit-base-patch32_sun397
... ''')
>>> [entry.name for entry in loaded.recipe.stream()]
['clip-vit-base-patch32_sun397']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from merge_recipes.lazy_names import load_names

if TYPE_CHECKING:
    from merge_recipes.catalog import Catalog
    from merge_recipes.convert import converted
    from merge_recipes.dataset import DatasetReference
    from merge_recipes.digests import chain_digests, joint_digest, recipe_digest
    from merge_recipes.editor_schema import json_schema
    from merge_recipes.errors import (
        HubmergeError,
        InvalidReferenceError,
        LockError,
        Problem,
        RecipeError,
        RecipeFileError,
        RecipeSyntaxError,
    )
    from merge_recipes.gradients import LayerPositions, layer_of
    from merge_recipes.load import load_recipe, parse_recipe
    from merge_recipes.loaded import LoadedRecipe
    from merge_recipes.lock import Lock, LockedDataset, LockedModel, LockedStage
    from merge_recipes.make_lock import Resolver, check_lock, lock_recipe
    from merge_recipes.notes import check_recipe
    from merge_recipes.parameters import PerTensor, TensorParameters, parameters_for
    from merge_recipes.publishing import Publish
    from merge_recipes.queries import ModelCollection, ModelQuery
    from merge_recipes.references import ModelReference
    from merge_recipes.schema import (
        Evaluate,
        Recipe,
        StreamEntry,
        Task,
        TensorRules,
    )
    from merge_recipes.slices import Slice
    from merge_recipes.tasks import task_entries

_NAMES = {
    "merge_recipes.catalog": ("Catalog",),
    "merge_recipes.convert": ("converted",),
    "merge_recipes.dataset": ("DatasetReference",),
    "merge_recipes.digests": (
        "chain_digests",
        "joint_digest",
        "recipe_digest",
    ),
    "merge_recipes.editor_schema": ("json_schema",),
    "merge_recipes.errors": (
        "HubmergeError",
        "InvalidReferenceError",
        "LockError",
        "Problem",
        "RecipeError",
        "RecipeFileError",
        "RecipeSyntaxError",
    ),
    "merge_recipes.gradients": (
        "LayerPositions",
        "layer_of",
    ),
    "merge_recipes.load": (
        "load_recipe",
        "parse_recipe",
    ),
    "merge_recipes.loaded": ("LoadedRecipe",),
    "merge_recipes.lock": (
        "Lock",
        "LockedDataset",
        "LockedModel",
        "LockedStage",
    ),
    "merge_recipes.make_lock": (
        "Resolver",
        "check_lock",
        "lock_recipe",
    ),
    "merge_recipes.notes": ("check_recipe",),
    "merge_recipes.parameters": (
        "PerTensor",
        "TensorParameters",
        "parameters_for",
    ),
    "merge_recipes.publishing": ("Publish",),
    "merge_recipes.queries": (
        "ModelCollection",
        "ModelQuery",
    ),
    "merge_recipes.references": ("ModelReference",),
    "merge_recipes.schema": (
        "Evaluate",
        "Recipe",
        "StreamEntry",
        "Task",
        "TensorRules",
    ),
    "merge_recipes.slices": ("Slice",),
    "merge_recipes.tasks": ("task_entries",),
}

__all__ = [
    "Catalog",
    "DatasetReference",
    "Evaluate",
    "HubmergeError",
    "InvalidReferenceError",
    "LayerPositions",
    "LoadedRecipe",
    "Lock",
    "LockError",
    "LockedDataset",
    "LockedModel",
    "LockedStage",
    "ModelCollection",
    "ModelQuery",
    "ModelReference",
    "PerTensor",
    "Problem",
    "Publish",
    "Recipe",
    "RecipeError",
    "RecipeFileError",
    "RecipeSyntaxError",
    "Resolver",
    "Slice",
    "StreamEntry",
    "Task",
    "TensorParameters",
    "TensorRules",
    "chain_digests",
    "check_lock",
    "check_recipe",
    "converted",
    "joint_digest",
    "json_schema",
    "layer_of",
    "load_recipe",
    "lock_recipe",
    "parameters_for",
    "parse_recipe",
    "recipe_digest",
    "task_entries",
]

if not TYPE_CHECKING:
    __getattr__ = load_names(__name__, _NAMES)
