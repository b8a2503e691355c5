"""`hubmerge check`."""

from __future__ import annotations

import typer

from hubmerge.api import recipes
from hubmerge.cli.options import Json, Quiet, Recipe, command_context


def check(
    context: typer.Context,
    recipe: Recipe,
    *,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Check a recipe without network access."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    progress.note(f"{recipe}: {recipes.check(recipe, progress=progress)}")
    return 0
