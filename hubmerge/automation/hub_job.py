"""Plan of the job on the Hub that runs a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import UsageError
from hubmerge.hub.jobs import TARGET_VARIABLE, HubJob
from hubmerge.stream.lockfile import read_lock
from merge_recipes import LoadedRecipe, ModelCollection, ModelQuery, Problem, RecipeError

IMAGE = "python:3.12"
SCRIPT = """\
set -eu
python -m pip install --quiet --no-deps "$HUBMERGE_REQUIREMENT"
python -m pip install --quiet filelock huggingface_hub numpy platformdirs pydantic pyyaml rich typer uv
printf '%s' "$HUBMERGE_RECIPE" > recipe.yaml
if [ -n "${HUBMERGE_LOCK:-}" ]; then printf '%s' "$HUBMERGE_LOCK" > recipe.lock.yaml; fi
status=0
hubmerge outdated recipe.yaml || status=$?
case "$status" in
  0) exit 0 ;;
  10) ;;
  *) exit "$status" ;;
esac
uv pip install --quiet --system --torch-backend "$HUBMERGE_TORCH" "$HUBMERGE_REQUIREMENT"
exec hubmerge run recipe.yaml --work-dir work
"""
_SCHEDULE = re.compile(r"@(annually|yearly|monthly|weekly|daily|hourly)|[0-9*,/-]+( [0-9A-Za-z*,/-]+){4}")
_TIMEOUT = re.compile(r"[0-9]{1,4}[smhd]")


def plan_job(
    loaded: LoadedRecipe,
    *,
    schedule: str | None,
    flavor: str,
    timeout: str,
    requirement: str,
    author_type: Callable[[str], str],
) -> HubJob:
    """Plan the job for a recipe.

    Args:
        loaded: the recipe.
        schedule: when to run; None for a job that webhooks start.
        flavor: hardware of the Hub.
        timeout: longest time of one run, such as `6h`.
        requirement: what pip installs to get hubmerge.
        author_type: returns the kind of an author, `user` or `org`.

    Raises:
        RecipeError: the recipe publishes nothing, asks for signatures, or names local folders.
        UsageError: the schedule or the timeout cannot be read.
    """
    target = _checked_target(loaded, schedule, timeout)
    lock = read_lock(loaded)
    environment = {
        "HUBMERGE_REQUIREMENT": requirement,
        "HUBMERGE_TORCH": "cpu" if flavor.startswith("cpu") else "auto",
        "HUBMERGE_RECIPE": loaded.text,
        TARGET_VARIABLE: target,
    }
    if lock is not None:
        environment["HUBMERGE_LOCK"] = lock.to_yaml()
    watched = tuple(dict.fromkeys(_watched(loaded, author_type))) if schedule is None else ()
    return HubJob(IMAGE, ("bash", "-c", SCRIPT), environment, flavor, timeout, schedule, watched)


def _checked_target(loaded: LoadedRecipe, schedule: str | None, timeout: str) -> str:
    """Check the inputs of a job, and return the repo that it publishes to."""
    publish = loaded.recipe.publish
    if publish is None:
        message = "automatic merging needs a recipe that publishes its steps: the key `publish` is missing"
        raise RecipeError(Problem(message, "add `publish: {repo: owner/name}`", str(loaded.path)))
    if publish.sign is not None:
        message = "a job on the Hub cannot sign: it has neither a file with a key nor an identity that Sigstore knows"
        hint = f"remove `sign`, and sign what was published: hubmerge sign {publish.repo} --key FILE"
        raise RecipeError(Problem(message, hint, str(loaded.path)))
    for name in _local(loaded):
        message = f"{name} is a local folder: a job on the Hub cannot read it"
        raise RecipeError(Problem(message, "upload it to a repo on the Hub and write owner/name", str(loaded.path)))
    if schedule is not None and _SCHEDULE.fullmatch(schedule) is None:
        raise UsageError(
            f"{schedule!r} is not a schedule: expected @hourly, @daily, ... or five cron fields",
            hint="--schedule @daily",
        )
    if _TIMEOUT.fullmatch(timeout) is None:
        raise UsageError(f"{timeout!r} is not a time: expected for example 90m, 6h or 1d", hint="--timeout 6h")
    return publish.repo


def _local(loaded: LoadedRecipe) -> Iterator[str]:
    recipe = loaded.recipe
    for one in (*recipe.stages.values(), recipe):
        for reference in (one.base_model, *(entry.model for entry in one.entries)):
            is_local = reference.is_local and reference.stage is None
            if is_local or (reference.adapter is not None and reference.adapter.is_local):
                yield str(reference)
    for task in recipe.evaluate.tasks if recipe.evaluate is not None else ():
        yield from (source.written_path for source in task.dataset.sources if source.is_local)


def _watched(loaded: LoadedRecipe, author_type: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    for item in loaded.recipe.models:
        if isinstance(item, ModelQuery):
            yield author_type(item.author), item.author
        elif isinstance(item, ModelCollection):
            message = f"{item}: the Hub has no webhook for changes of a collection"
            raise RecipeError(Problem(message, "replace --on-update by --schedule @daily", str(loaded.path)))
        else:
            yield "model", item.model.path
            if item.model.adapter is not None:
                yield "model", item.model.adapter.path


@dataclass(frozen=True)
class PlannedJob:
    """A job that can be created on the Hub; `str()` of it describes the job. The token is named and never shown."""

    job: HubJob

    def __str__(self) -> str:
        job = self.job
        if job.schedule is not None:
            lines = [f"scheduled job on the Hub: {job.schedule}, one run at a time"]
        else:
            names = ", ".join(f"{kind} {name}" for kind, name in job.watched)
            lines = ["job on the Hub: runs once now, then whenever a webhook reports a change", f"watches  {names}"]
        lock = ", with its lock" if "HUBMERGE_LOCK" in job.environment else ""
        lines += [
            f"image    {job.image} on {job.flavor}, at most {job.timeout}",
            f"publish  {job.environment[TARGET_VARIABLE]}",
            f"install  {job.environment['HUBMERGE_REQUIREMENT']}",
            "secret   HF_TOKEN, the token of this machine",
            f"recipe   a copy of its current text{lock}",
            "command",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in SCRIPT.splitlines())])

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain JSON values; secrets are named, not included."""
        job = self.job
        return {
            "image": job.image,
            "command": list(job.command),
            "environment": dict(job.environment),
            "secrets": ["HF_TOKEN"],
            "flavor": job.flavor,
            "timeout": job.timeout,
            "schedule": job.schedule,
            "watched": [{"type": kind, "name": name} for kind, name in job.watched],
        }
