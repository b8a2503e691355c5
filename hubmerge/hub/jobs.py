"""Jobs on the Hub: one that runs on a schedule, or one that a webhook starts when a repo changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import HubError
from hubmerge.hub.client import TRANSPORT_ERROR, Result, api, call, explain, status_of

TARGET_VARIABLE = "HUBMERGE_TARGET"
"""The environment variable by which a job for a target is known again."""


@dataclass(frozen=True)
class HubJob:
    """What is to run on the Hub. `watched` are (type, name) pairs: model, user or org; empty for a scheduled job."""

    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    flavor: str
    timeout: str
    schedule: str | None = None
    watched: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class CreatedJob:
    """What was made on the Hub."""

    job: str
    webhook: str | None = None


def author_type(name: str) -> str:
    """Tell whether an author is an organization (`org`) or a `user`."""

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
    """Make the job; its token is the one that this machine uses.

    Raises:
        HubError: no token, no permission, or a scheduled job for this target is there already.
    """
    token = get_token()
    if token is None:
        raise HubError("a job on the Hub needs a token with write access", hint="set HF_TOKEN, or run `hf auth login`")
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
        _refuse_second(job.environment[TARGET_VARIABLE])
        made = _once(lambda: api().create_scheduled_job(schedule=job.schedule or "", concurrency=False, **settings))
        return CreatedJob(str(made.id))
    source = _once(lambda: api().run_job(**settings))
    watched: Sequence[Any] = [{"type": kind, "name": name} for kind, name in job.watched]
    hook = _once(
        lambda: api().create_webhook(job_id=source.id, watched=list(watched), domains=["repo"], secrets=secrets)
    )
    return CreatedJob(str(source.id), str(hook.id))


def _refuse_second(target: str) -> None:
    for job in call("scheduled jobs", lambda: api().list_scheduled_jobs()):
        if (job.job_spec.environment or {}).get(TARGET_VARIABLE) == target:
            raise HubError(
                f"a scheduled job for {target} is there already: {job.id}",
                hint=f"take it away first: hf jobs scheduled delete {job.id}",
            )


def _once(function: Callable[[], Result]) -> Result:
    """Call a function that makes something, and not a second time: a lost answer must not leave two of them."""
    try:
        return function()
    except (HfHubHTTPError, TRANSPORT_ERROR, ConnectionError, TimeoutError) as error:
        raise explain(error, "making a job on the Hub") from error
