"""`hubmerge lock`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import recipes
from hubmerge.cli.options import Json, Quiet, Recipe, command_context
from hubmerge.support.text import counted


def lock(
    context: typer.Context,
    recipe: Recipe,
    *,
    update: Annotated[
        bool, typer.Option("--update", help="Take the newest commit of everything that is not published yet.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write RECIPE.lock.yaml: one commit for every reference."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    written = recipes.lock(recipe, update=update, progress=progress)
    models, datasets = len(written.lock.models), len(written.lock.datasets)
    state = "written" if written.changed else "unchanged"
    progress.note(f"{written.path}: {state}: {counted(models, 'checkpoint')}, {counted(datasets, 'dataset')}")
    progress.event("lock", {"path": str(written.path), "changed": written.changed, "models": models})
    return 0
