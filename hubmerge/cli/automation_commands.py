"""What the commands that merge by themselves do, from a loaded recipe to lines on the screen."""

from __future__ import annotations

import argparse
from pathlib import Path

from hubmerge.automation.github import write_workflow
from hubmerge.automation.hub_job import PlannedJob, plan_job
from hubmerge.automation.outdated import OUTDATED, find_changes
from hubmerge.automation.watch import watch
from hubmerge.cli.commands import progress_for
from hubmerge.hub.jobs import author_type, create_job
from hubmerge.stream.load import load
from hubmerge.stream.lockfile import lock_path, write_lock
from hubmerge.support.versions import EVALUATION_LIBRARIES, LIBRARIES, installed_versions


def dispatch(options: argparse.Namespace, output_format: str) -> int:
    """Do what the command line asks for and return the exit status."""
    if options.command == "lock":
        return lock(options.recipe, output_format, update=options.update)
    if options.command == "init":
        return init(options.recipe, options.every, output_format, oidc=options.oidc, force=options.force)
    if options.command == "deploy":
        return deploy_hub_job(options, output_format)
    if options.command == "watch":
        return watch(options.recipe, options.work_dir, options.every, options.listen, progress_for(output_format))
    return outdated(options.recipe, output_format)


def lock(recipe: Path, output_format: str, *, update: bool = False) -> int:
    """Write the lock beside a recipe."""
    from hubmerge.stream.pinned import PinnedCommits
    from hubmerge.stream.stream import resolve_stream

    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    with progress.stage("resolve commits"):
        stream = resolve_stream(loaded, PinnedCommits.gather(loaded, update=update))
    drawn = stream.lock.model_copy(update={"versions": installed_versions(LIBRARIES + EVALUATION_LIBRARIES)})
    changed = write_lock(loaded, drawn)
    path = lock_path(recipe)
    told = "written" if changed else "as it was"
    progress.note(f"{path}: {told}: {len(drawn.models)} checkpoint(s), {len(drawn.datasets)} dataset(s)")
    progress.event("lock", {"path": str(path), "changed": changed, "models": len(drawn.models)})
    return 0


def outdated(recipe: Path, output_format: str) -> int:
    """Show what moved on the Hub; exit status 10 if anything did."""
    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    with progress.stage("ask the Hub"):
        changes = find_changes(loaded)
    progress.note(str(changes))
    if loaded.recipe.publish is None:
        progress.note("the recipe publishes nothing: this compares with its lock alone, not with what runs left here")
    progress.event("outdated", {"outdated": bool(changes), "news": [one.to_dict() for one in changes]})
    return OUTDATED if changes else 0


def init(recipe: Path, cron: str, output_format: str, *, oidc: bool, force: bool) -> int:
    """Write the workflow that runs a recipe by itself, and say what is left to do by hand."""
    progress = progress_for(output_format)
    loaded = load(recipe, progress)
    path = write_workflow(loaded, cron, oidc=oidc, force=force)
    target = loaded.recipe.publish.repo if loaded.recipe.publish is not None else ""
    progress.note(f"{path}: written")
    if oidc:
        progress.note(f"left to do: name this GitHub repository as a trusted publisher in the settings of {target}")
    else:
        progress.note(f"left to do: add the secret HF_TOKEN, a token that may write to {target}, to the repository")
    progress.event("workflow", {"path": str(path)})
    return 0


def deploy_hub_job(options: argparse.Namespace, output_format: str) -> int:
    """Show the job that would run the recipe on the Hub, and make it where that is asked for."""
    progress = progress_for(output_format)
    loaded = load(options.recipe, progress)
    job = plan_job(
        loaded,
        schedule=None if options.on_update else options.schedule,
        flavor=options.flavor,
        timeout=options.timeout,
        author_type=author_type,
    )
    progress.note(str(PlannedJob(job)))
    progress.event("hub-job", PlannedJob(job).to_dict())
    if not options.yes:
        progress.note("nothing was made; add --yes to make it")
        return 0
    made = create_job(job)
    progress.note(f"made job {made.job}" + (f" and webhook {made.webhook}" if made.webhook is not None else ""))
    progress.event("made", {"job": made.job, "webhook": made.webhook})
    return 0
