"""`hubmerge outdated`."""

from __future__ import annotations

import typer

from hubmerge.api import published, recipes
from hubmerge.cli.options import Json, Quiet, Recipe, command_context

OUTDATED = 10
"""Exit status if the next run has something to do, or a change is reported for the first time."""


def outdated(
    context: typer.Context,
    recipe: Recipe,
    *,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Show what changed on the Hub; exit status 10 if a run has something to merge, or a change is new."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    loaded = recipes.load(recipe, progress=progress)
    changes = published.outdated(loaded, progress=progress)
    progress.note(str(changes))
    if loaded.recipe.publish is None:
        progress.note("the recipe publishes nothing: compared with its lock only, not with models on disk")
    news = published.call_for_run(loaded, changes)
    progress.event("outdated", {"outdated": news, "news": [one.to_dict() for one in changes]})
    return OUTDATED if news else 0
