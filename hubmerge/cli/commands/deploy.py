"""`hubmerge deploy hub-job`."""

from __future__ import annotations

from typing import Annotated

import typer

from hubmerge.api import automation, recipes
from hubmerge.cli.options import Json, Quiet, Recipe, Requirement, command_context

deploy = typer.Typer(help="Run a recipe on another machine.", invoke_without_command=True)


@deploy.command("hub-job")
def hub_job(
    context: typer.Context,
    recipe: Recipe,
    *,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="CRON", help="@hourly, @daily, ... or five cron fields.", show_default="@daily"),
    ] = None,
    on_update: Annotated[
        bool, typer.Option("--on-update", help="Start when a source repo changes, by a webhook.")
    ] = False,
    flavor: Annotated[str, typer.Option(help="Hardware of the Hub.")] = "cpu-upgrade",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Longest time of one run.")] = "6h",
    requirement: Requirement = None,
    yes: Annotated[bool, typer.Option("--yes", help="Create the job; without it, the job is only shown.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Create a job on the Hub, scheduled or started by webhooks."""
    if on_update and schedule is not None:
        raise typer.BadParameter("--schedule and --on-update exclude each other")
    progress = command_context(context, quiet=quiet, json=json).progress()
    when = None if on_update else schedule or "@daily"
    loaded = recipes.load(recipe, progress=progress)
    job = automation.plan_hub_job(loaded, schedule=when, flavor=flavor, timeout=timeout, requirement=requirement)
    progress.note(str(job))
    progress.event("hub-job", job.to_dict())
    if not yes:
        progress.note("nothing was created; add --yes to create the job")
        return 0
    created = automation.deploy_hub_job(job)
    webhook = f" and webhook {created.webhook}" if created.webhook is not None else ""
    progress.note(f"created job {created.job}{webhook}")
    progress.event("made", {"job": created.job, "webhook": created.webhook})
    return 0
