"""Recipes read from a file and checked against what is installed."""

from __future__ import annotations

from pathlib import Path

from hubmerge.stream.catalog import installed_catalog
from hubmerge.stream.revocation import check_revocable
from hubmerge.support.progress import Progress
from merge_recipes import LoadedRecipe, check_recipe, load_recipe


def load(recipe: Path, progress: Progress) -> LoadedRecipe:
    """Read a recipe and check it against what is installed; report remarks to `progress`.

    Raises:
        RecipeError: The recipe is not valid. The error lists every problem of the file.
    """
    catalog = installed_catalog()
    loaded = load_recipe(recipe, catalog)
    for remark in check_recipe(loaded, catalog):
        progress.note(f"note: {remark}")
    check_revocable(loaded)
    return loaded
