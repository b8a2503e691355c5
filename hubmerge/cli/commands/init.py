"""`hubmerge init`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import automation, recipes
from hubmerge.cli.options import Json, Quiet, Recipe, Requirement, command_context


def init(
    context: typer.Context,
    recipe: Recipe,
    *,
    github: Annotated[bool, typer.Option("--github", help="Write a GitHub workflow (required).")] = False,
    oidc: Annotated[bool, typer.Option("--oidc", help="Publish without a stored token (trusted publishing).")] = False,
    every: Annotated[str, typer.Option(metavar="CRON", help="When to run: five cron fields, in UTC.")] = "17 */6 * * *",
    requirement: Requirement = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a workflow that differs.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write the workflow that runs a recipe on a schedule."""
    if not github:
        raise typer.BadParameter("name the service: --github is the only one", param_hint="--github")
    progress = command_context(context, quiet=quiet, json=json).progress()
    loaded = recipes.load(recipe, progress=progress)
    path = automation.init_github(loaded, cron=every, oidc=oidc, force=force, requirement=requirement)
    target = loaded.recipe.publish.repo if loaded.recipe.publish is not None else ""
    progress.note(f"{path}: written; it installs {automation.install_requirement(requirement, loaded)}")
    if oidc:
        progress.note(f"next: name this GitHub repository as a trusted publisher in the settings of {target}")
    else:
        progress.note(f"next: add a secret HF_TOKEN to the repository, a token that may write to {target}")
    sign = loaded.recipe.publish.sign if loaded.recipe.publish is not None else None
    if sign is not None and not sign.is_keyless:
        progress.note(
            f"next: let the job write the signing key to {sign.key}, outside of the repository, before the run"
        )
    progress.event("workflow", {"path": str(path)})
    return 0
