"""Requests to the Hub with bounded retries and errors for users.

The client library retries some requests and not others; `call` retries all of them after a transient failure: no
connection, a broken connection, a response that is cut short or is not JSON, HTTP status 408, 429 or 5xx.

The wait doubles from 1 second to 30, with jitter, about half a minute in all. A wait that the Hub asks for is respected
up to 5 minutes. After 10 minutes nothing is retried.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from hubmerge.errors import HubmergeError
from hubmerge.hub.client import api, endpoint
from hubmerge.hub.explain import explain
from hubmerge.hub.failures import TransientError, disk_error, hub_failure, is_transient, requested_wait, status_of
from hubmerge.support import interrupts
from hubmerge.support.progress import count_work, waiting

Result = TypeVar("Result")

RETRIES = 5
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
LONGEST_REQUESTED_WAIT_SECONDS = 300.0
"""Longest wait that a rate limit may ask for; above it the call fails at once."""

LARGE_UPLOAD_BYTES = 64 << 20
"""Size from which files are uploaded apart from smaller ones, so that the progress of an upload is seen."""

UPLOADS_AT_ONCE = 4
"""Number of large files that are uploaded at the same time. One request to a Hub with Xet takes all of them."""

PATIENCE_SECONDS = 600.0
"""Time after which nothing is retried; the client's own retries wait too, for as long as the Hub asks."""


def call(
    subject: str,
    function: Callable[[], Result],
    *,
    repo: str | None = None,
    commit: str | None = None,
    file: str | None = None,
    sleep: Callable[[float], None] | None = None,
    publishes: bool = False,
) -> Result:
    """Call a function that sends requests, at most `RETRIES` times more after transient failures.

    Args:
        subject: what is requested, for example "model me/x at main"; error messages start with it.
        function: the requests; it may raise `TransientError` to be called again.
        repo: the repo, a field of the error.
        commit: the commit, a field of the error; a missing revision then means that the history was rewritten.
        file: the file, a field of the error.
        sleep: the function that waits, by default `interrupts.wait`.
        publishes: True if the requests change the Hub; none is sent after a signal.

    Raises:
        HubError: the Hub refused, or the failures lasted.
        MachineError: a download cannot be written to disk.
        KeyboardInterrupt: a signal requested a stop.
    """
    begin = time.monotonic()
    attempt = 0
    while True:
        interrupts.check()
        try:
            with interrupts.publishing() if publishes else nullcontext():
                return function()
        except Exception as error:  # libraries between this code and the Hub wrap its errors in many classes
            failure = _hub_failure(error, subject)
            wait = _wait_seconds(failure, attempt, time.monotonic() - begin)
            if wait is None:
                raise explain(failure, subject, repo=repo, commit=commit, file=file) from error
        attempt += 1
        _wait(wait, attempt, sleep or interrupts.wait)


def _wait(seconds: float, attempt: int, sleep: Callable[[float], None]) -> None:
    """Wait before the next attempt, and show that one does."""
    with waiting(f"no usable answer from {endpoint()}: attempt {attempt + 1} of {RETRIES + 1}"):
        sleep(seconds)


def create_commit(repo: str, operations: Sequence[Any], title: str, **options: Any) -> str:
    """Create one commit in a model repo and return it. Use it inside `call`.

    Large files are uploaded first. A signal during the upload ends it before anything is published.

    Raises:
        TransientError: the Hub is processing another commit to the repo.
    """
    additions = [operation for operation in operations if isinstance(operation, CommitOperationAdd)]
    for group in _upload_groups(additions):
        interrupts.check()
        api().preupload_lfs_files(
            repo, group, revision=options.get("revision"), num_threads=UPLOADS_AT_ONCE, free_memory=False
        )
        count_work(sum(addition.upload_info.size for addition in group))
    try:
        with interrupts.publishing():
            return api().create_commit(repo, operations, commit_message=title, **options).oid
    except HfHubHTTPError as error:
        if status_of(error) == 409:
            raise TransientError("the Hub is processing another commit to the repo") from error
        raise


def _upload_groups(additions: Sequence[CommitOperationAdd]) -> list[list[CommitOperationAdd]]:
    """Return the files of a commit in groups, which are uploaded one after the other: small files, then large ones."""
    small = [one for one in additions if one.upload_info.size < LARGE_UPLOAD_BYTES]
    large = [one for one in additions if one.upload_info.size >= LARGE_UPLOAD_BYTES]
    groups = [large[first : first + UPLOADS_AT_ONCE] for first in range(0, len(large), UPLOADS_AT_ONCE)]
    return [*([small] if small else []), *groups]


def _hub_failure(error: Exception, subject: str) -> Exception:
    """Return the failure of the Hub behind an error; raise everything that is not one."""
    if isinstance(error, HubmergeError):
        raise error
    if (full := disk_error(error, subject)) is not None:
        raise full from error
    failure = hub_failure(error)
    if failure is None:
        raise error
    return failure


def _wait_seconds(failure: Exception, attempt: int, elapsed_seconds: float) -> float | None:
    """Return the seconds to wait before a retry, or None if nothing should be retried."""
    if attempt == RETRIES or elapsed_seconds > PATIENCE_SECONDS or not is_transient(failure):
        return None
    requested = requested_wait(failure)
    if requested is not None:
        return requested + 0.5 if requested + 0.5 <= LONGEST_REQUESTED_WAIT_SECONDS else None
    wait: float = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret
