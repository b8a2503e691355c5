"""Merging without a person: watch a recipe, write a GitHub workflow, create a job on the Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import RecipeLike, load
from hubmerge.errors import UsageError
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder

if TYPE_CHECKING:
    from hubmerge.automation.hub_job import PlannedJob
    from hubmerge.hub.jobs import CreatedJob
    from merge_recipes import LoadedRecipe


def watch(
    recipe: str | os.PathLike[str],
    *,
    every: float | None = None,
    listen: tuple[str, int] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> None:
    """Check the Hub again and again, and run the recipe when something changed; ends with Ctrl-C or SIGTERM.

    Args:
        recipe: the path of a YAML file, which is read again before each check.
        every: seconds between two checks; 600 if neither `every` nor `listen` is given.
        listen: host and port to receive webhooks of the Hub on; their secret is in HUBMERGE_WEBHOOK_SECRET.
        work_dir: folder for states and caches; in the user's cache folder by default.
        progress: receives one note and one event for each check.

    Raises:
        RecipeError: the recipe has problems when the watch begins.
        MachineError: the port cannot be used, or there is no secret.
    """
    from hubmerge.automation.watch import watch as watch_recipe

    work = user_cache_folder("runs") if work_dir is None else Path(work_dir)
    with interrupts.handled():
        watch_recipe(Path(recipe), work, every, listen, open_progress(progress))


def install_requirement(given: str | None = None, recipe: LoadedRecipe | None = None) -> str:
    """Return what another machine has to install to get this hubmerge.

    Args:
        given: the requirement that the user named.
        recipe: the recipe that is run there; if it asks for signatures, the requirement gets the extra `sign`.

    Raises:
        UsageError: hubmerge was installed from a folder of this machine and `given` is None, or `given` takes no extra.
    """
    from hubmerge.support.requirement import requirement, with_extra

    publish = recipe.recipe.publish if recipe is not None else None
    found = requirement(given)
    return found if publish is None or publish.sign is None else with_extra(found, "sign")


def init_github(
    recipe: RecipeLike,
    *,
    cron: str = "17 */6 * * *",
    oidc: bool = False,
    force: bool = False,
    requirement: str | None = None,
) -> Path:
    """Write the GitHub workflow that runs a recipe on a schedule, into the repository of the recipe.

    Args:
        recipe: the path of a YAML file, or a recipe loaded from one.
        cron: when to run, five fields, in UTC.
        oidc: publish without a stored token (trusted publishing).
        force: replace a workflow that differs.
        requirement: what pip installs to get hubmerge, such as `hubmerge @ git+https://HOST/OWNER/REPO@COMMIT`; by
            default where the installed one comes from.

    Returns:
        The file.

    Raises:
        RecipeError: the recipe has problems or publishes nothing.
        MachineError: the recipe is not in a git repository.
        UsageError: a different workflow exists, or hubmerge was installed from a folder of this machine and
            `requirement` is not given.
    """
    from hubmerge.automation.github import write_workflow

    loaded = _from_file(recipe)
    return write_workflow(loaded, cron, install_requirement(requirement, loaded), oidc=oidc, force=force)


def plan_hub_job(
    recipe: RecipeLike,
    *,
    schedule: str | None = "@daily",
    flavor: str = "cpu-upgrade",
    timeout: str = "6h",
    requirement: str | None = None,
) -> PlannedJob:
    """Describe the job on the Hub that would run a recipe; nothing is created.

    Args:
        recipe: the path of a YAML file, a dict with the keys of a recipe, or a loaded recipe.
        schedule: `@hourly`, `@daily`, ... or five cron fields; None for a job that starts when a source repo changes.
        flavor: hardware of the Hub.
        timeout: longest time of one run, such as `6h`.
        requirement: see `init_github`.

    Returns:
        The job; `str(job)` describes it, `deploy_hub_job` creates it.

    Raises:
        RecipeError: the recipe has problems, publishes nothing, or names local folders.
        UsageError: the schedule or the timeout cannot be read, or hubmerge was installed from a folder of this machine
            and `requirement` is not given.
    """
    from hubmerge.automation.hub_job import PlannedJob, plan_job
    from hubmerge.hub.jobs import author_type

    job = plan_job(
        load(recipe),
        schedule=schedule,
        flavor=flavor,
        timeout=timeout,
        requirement=install_requirement(requirement),
        author_type=author_type,
    )
    return PlannedJob(job)


def deploy_hub_job(job: PlannedJob) -> CreatedJob:
    """Create a planned job on the Hub, with its webhook if it has one.

    Raises:
        HubError: the Hub refuses the job.
    """
    from hubmerge.hub.jobs import create_job

    return create_job(job.job)


def _from_file(recipe: RecipeLike) -> LoadedRecipe:
    loaded = load(recipe)
    if not loaded.path.is_file():
        raise UsageError("a recipe that is a dict has no file for a workflow to run", hint="write it to recipe.yaml")
    return loaded
