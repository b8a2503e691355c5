"""`hubmerge init`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hubmerge.api import automation, planning, proposals, recipes
from hubmerge.cli.options import Json, Quiet, Requirement, command_context, refuse_unused
from hubmerge.support.progress import Progress
from hubmerge.support.text import in_shell

NamesArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="BASE MODEL...|RECIPE",
        help="Base model, then checkpoints, queries or collections; or with --github, a recipe.",
    ),
]
Search: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="WORDS", help="Take the checkpoints of BASE whose names on the Hub have these words."),
]

_FOR_WORKFLOWS = ("oidc", "every", "requirement")
_FOR_RECIPES = ("search", "out", "method", "publish")
"""Options of either use of the command, by the names of their parameters."""


def init(
    context: typer.Context,
    names: NamesArgument = None,
    *,
    search: Search = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write the recipe to this file.")] = Path("recipe.yaml"),
    method: Annotated[str | None, typer.Option(metavar="NAME", help="Merge method.", show_default="chosen")] = None,
    publish: Annotated[str | None, typer.Option(metavar="REPO", help="Repo to publish to.")] = None,
    github: Annotated[bool, typer.Option("--github", help="Write a GitHub workflow that runs RECIPE.")] = False,
    oidc: Annotated[bool, typer.Option("--oidc", help="Publish without a stored token (trusted publishing).")] = False,
    every: Annotated[str, typer.Option(metavar="CRON", help="When to run: five cron fields, in UTC.")] = "17 */6 * * *",
    requirement: Requirement = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that differs.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Propose a recipe for models, or write the workflow that runs a recipe on a schedule."""
    command, names = command_context(context, quiet=quiet, json=json), names or []
    refuse_unused(context, _FOR_WORKFLOWS if not github else (), without="--github")
    refuse_unused(context, _FOR_RECIPES if github else (), beside="--github")
    if not names and search is None and not github and sys.stdin.isatty() and not (quiet or json):
        names, publish = _ask(publish)
    progress = command.progress()
    if github:
        if len(names) != 1:
            raise typer.BadParameter("--github needs one recipe", param_hint="RECIPE")
        return _write_workflow(Path(names[0]), progress, every=every, oidc=oidc, force=force, requirement=requirement)
    if len(names) < 2 and search is None:
        message = "name a base model and at least one checkpoint, or --search WORDS, or a recipe with --github"
        raise typer.BadParameter(message, param_hint="BASE MODEL...|RECIPE")
    base, models = names[0] if names else None, names[1:]
    path = proposals.propose(base, models, search=search, out=out, method=method, publish=publish, force=force)
    _show(path, progress)
    return 0


def _show(path: Path, progress: Progress) -> None:
    """Print the plan of a recipe that was written."""
    progress.note(f"{path}: written\n")
    progress.event("recipe", {"path": str(path)})
    planned = planning.plan(path, progress=progress)
    progress.event("plan", planned.to_dict())
    progress.note(str(planned))
    progress.note(f"next: read {path}, then `hubmerge run {in_shell(path)} --out merged`")


def _ask(publish: str | None) -> tuple[list[str], str | None]:
    """Ask for the base model, the checkpoints and the target."""
    base = str(typer.prompt("base model (owner/name or ./folder)")).strip()
    models: list[str] = []
    while model := _answer("checkpoint, query or collection (empty: no more)"):
        models.append(model)
    return [base, *models], publish or _answer("publish to (empty: not yet)") or None


def _answer(question: str) -> str:
    return str(typer.prompt(question, default="", show_default=False)).strip()


def _write_workflow(
    recipe: Path, progress: Progress, *, every: str, oidc: bool, force: bool, requirement: str | None
) -> int:
    loaded = recipes.load(recipe, progress=progress)
    path = automation.init_github(loaded, cron=every, oidc=oidc, force=force, requirement=requirement)
    target = loaded.recipe.publish.repo if loaded.recipe.publish is not None else ""
    progress.note(f"{path}: written; it installs {automation.install_requirement(requirement, loaded)}")
    if oidc:
        progress.note(
            f"next: commit and push it; name this GitHub repository a trusted publisher in the settings of {target}"
        )
    else:
        progress.note(
            f"next: commit and push it; add a secret HF_TOKEN to the repository, a token that may write to {target}"
        )
    sign = loaded.recipe.publish.sign if loaded.recipe.publish is not None else None
    if sign is not None and not sign.is_keyless:
        progress.note(
            f"next: let the job write the signing key to {sign.key}, outside of the repository, before the run"
        )
    progress.event("workflow", {"path": str(path)})
    return 0
