"""`hubmerge check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hubmerge.api import recipes
from hubmerge.cli.options import Json, Quiet, command_context
from hubmerge.cli.output import CommandContext


def check(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file of a recipe, or a folder of recipes.")],
    *,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Check a recipe, or all recipes in a folder, without network access."""
    command = command_context(context, quiet=quiet, json=json)
    progress = command.progress()
    if recipe.is_dir():
        return _check_folder(recipe, command)
    result = recipes.check(recipe, progress=progress)
    progress.note(f"{recipe}: {result}")
    progress.event("checked", _checked(recipe, result))
    return 0


def _checked(path: Path, result: recipes.CheckedRecipe) -> dict[str, Any]:
    counts = {"checkpoints": result.checkpoints, "queries": result.queries}
    return {"recipe": str(path), "valid": True, "problems": [], "merge_method": result.merge_method, **counts}


def _check_folder(folder: Path, command: CommandContext) -> int:
    """Check the recipes of a folder and return 2 if one has a problem."""
    checked, progress = recipes.check_folder(folder), command.progress()
    for path, result in checked.results.items():
        if isinstance(result, recipes.CheckedRecipe):
            progress.event("checked", _checked(path, result))
        else:
            problems = [str(problem) for problem in getattr(result, "problems", ())]
            progress.event("checked", {"recipe": str(path), "valid": False, "problems": problems})
    progress.event("summary", {"recipes": len(checked.results), "valid": checked.valid})
    if command.output_format == "text":
        print(checked)
    return 0 if checked.valid == len(checked.results) else 2
