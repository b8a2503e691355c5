"""`hubmerge plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import planning
from hubmerge.cli.options import Json, Quiet, Recipe, command_context, refuse_quiet_details


def plan(
    context: typer.Context,
    recipe: Recipe,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print all steps, tensors, files and notes.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Show what a run would do; reads file headers only."""
    progress = command_context(context, quiet=quiet, json=json).progress()
    refuse_quiet_details(context, quiet=quiet, json=json)
    planned = planning.plan(recipe, progress=progress)
    progress.event("plan", planned.to_dict())
    progress.note(planned.details if verbose else str(planned))
    return 0
