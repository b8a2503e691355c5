"""Jobs on the Hub that run on a schedule, or that a webhook starts when a repo changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import HubError, HubmergeError
from hubmerge.hub.client import api
from hubmerge.hub.explain import explain
from hubmerge.hub.failures import hub_failure, status_of
from hubmerge.hub.retry import Result, call

TARGET_VARIABLE = "HUBMERGE_TARGET"
"""The environment variable of a job that names its target repo; it identifies the job of a target."""


@dataclass(frozen=True)
class HubJob:
    """A job to create. `watched` holds pairs (type, name), type being model, user or org; empty if scheduled."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    flavor: str
    timeout: str
    schedule: str | None = None
    watched: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class CreatedJob:
    """The ids of a created job and its webhook."""

    job: str
    webhook: str | None = None


def author_type(name: str) -> str:
    """Return the type of an author: `org` for an organization, else `user`."""

    def ask() -> str:
        try:
            api().get_organization_overview(name)
        except HfHubHTTPError as error:
            if status_of(error) != 404:
                raise
            return "user"
        return "org"

    return call(f"author {name}", ask)


def create_job(job: HubJob) -> CreatedJob:
    """Create a job that uses the access token of this machine.

    Raises:
        HubError: there is no token, it has no permission, or the target has a scheduled job already.
    """
    token = get_token()
    if token is None:
        raise HubError(
            "no access token is set: a job on the Hub needs one with write access",
            hint="run `hf auth login`, or set HF_TOKEN",
        )
    secrets = {"HF_TOKEN": token}
    settings: dict[str, Any] = {
        "image": job.image,
        "command": list(job.command),
        "env": dict(job.environment),
        "secrets": secrets,
        "flavor": job.flavor,
        "timeout": job.timeout,
    }
    if job.schedule is not None:
        _check_no_scheduled_job(job.environment[TARGET_VARIABLE])
        made = _call_once(
            lambda: api().create_scheduled_job(schedule=job.schedule or "", concurrency=False, **settings)
        )
        return CreatedJob(str(made.id))
    source = _call_once(lambda: api().run_job(**settings))
    watched: Sequence[Any] = [{"type": kind, "name": name} for kind, name in job.watched]
    hook = _call_once(
        lambda: api().create_webhook(job_id=source.id, watched=list(watched), domains=["repo"], secrets=secrets)
    )
    return CreatedJob(str(source.id), str(hook.id))


def _check_no_scheduled_job(target: str) -> None:
    for job in call("scheduled jobs", lambda: api().list_scheduled_jobs()):
        if (job.job_spec.environment or {}).get(TARGET_VARIABLE) == target:
            raise HubError(
                f"the target {target} has a scheduled job already: {job.id}",
                hint=f"delete it first: hf jobs scheduled delete {job.id}",
                repo=target,
            )


def _call_once(function: Callable[[], Result]) -> Result:
    """Call a function that creates something, without retries: after a lost response a retry would create two."""
    try:
        return function()
    except HubmergeError:
        raise
    except Exception as error:  # the client itself fails on some bodies of refusals
        failure = hub_failure(error)
        if failure is None:
            raise
        raise explain(failure, "creating a job on the Hub") from error
