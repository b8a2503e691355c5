"""Calls to the Hub: one client, bounded retries, and errors that name the repo and say what to do."""

from __future__ import annotations

import functools
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import HubError

Result = TypeVar("Result")

TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the client's HTTP library raises when a connection breaks; which library it is depends on its version."""

RETRIES = 5
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_TOKEN = re.compile(r"hf_[A-Za-z0-9_]{6,}")


@functools.cache
def api() -> HfApi:
    """Return the client for the Hub that HF_ENDPOINT and HF_TOKEN name."""
    import hubmerge

    return HfApi(library_name="hubmerge", library_version=hubmerge.__version__)


def call(what: str, function: Callable[[], Result], *, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Call `function`, and again after a passing fault, at most `RETRIES` times.

    Waits double from one second, with jitter, up to thirty; a `Retry-After` answer is honoured up to five minutes.
    `what` names the thing asked for ("model me/x at main"), for the error.

    Raises:
        HubError: the Hub refused for good, or the faults did not pass.
    """
    for attempt in range(RETRIES + 1):
        try:
            return function()
        except LocalEntryNotFoundError as error:
            # Raised by the download functions for "no connection and not in the cache"; the cause says more.
            cause = error.__cause__
            if attempt == RETRIES or not (isinstance(cause, Exception) and is_transient(cause)):
                raise explain(cause if isinstance(cause, Exception) else error, what) from error
            failure: Exception = cause
        except (
            TRANSPORT_ERROR,
            OfflineModeIsEnabled,
            HFValidationError,
            ConnectionError,
            TimeoutError,
        ) as error:
            if attempt == RETRIES or not is_transient(error):
                raise explain(error, what) from error
            failure = error
        sleep(_wait_seconds(failure, attempt))
    raise AssertionError("unreachable")


def is_transient(error: Exception) -> bool:
    """Tell whether the same call may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        status = status_of(error)
        return status is None or status in TRANSIENT_STATUS
    if isinstance(error, (OfflineModeIsEnabled, HFValidationError)):
        return False
    return isinstance(error, (TRANSPORT_ERROR, ConnectionError, TimeoutError))


def status_of(error: Exception) -> int | None:
    """Return the HTTP status an error carries, if it carries one."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _wait_seconds(error: Exception, attempt: int) -> float:
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    if asked.isdigit():
        return min(float(asked), 300.0) + 0.5
    wait: float = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret


def explain(error: Exception, what: str) -> HubError:
    """Turn what the client raised into a sentence about `what`, with a way out."""
    endpoint = api().endpoint
    status = status_of(error)
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{what}: the repo is gated, and this token has not been granted access",
            hint=f"ask for access on {endpoint}, then run again with the token of that account in HF_TOKEN",
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{what}: no such repo on {endpoint}, or it is private and this token may not see it",
            hint="check the name for a typing error; for a private repo set HF_TOKEN",
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"{what}: the repo exists, but this revision does not",
            hint="name a branch, a tag, refs/pr/N or a 40-character commit that is there",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{what}: the file is not in the repo at this revision", hint="check the file name")
    if isinstance(error, DisabledRepoError):
        return HubError(f"{what}: the Hub has disabled this repo", hint="remove it from the recipe")
    if isinstance(error, HFValidationError):
        return HubError(f"{what}: not a valid repo name", hint="the form is owner/name")
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{what}: HF_HUB_OFFLINE is set and the answer is not in the cache", hint="unset it")
    if status == 401:
        return HubError(f"{what}: the token was not accepted", hint="set HF_TOKEN to a valid token")
    if status == 403:
        return HubError(
            f"{what}: this token has no permission to do that",
            hint="use a token with write access to the repo",
        )
    if status == 429:
        return HubError(f"{what}: the Hub limits the rate of calls and did not relent", hint="run again later")
    detail = without_token(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    return HubError(f"{what}: {endpoint} could not be used: {detail}", hint="check the network, or run again later")


def without_token(text: str) -> str:
    """Return `text` with anything that looks like an access token taken out."""
    return _TOKEN.sub("hf_***", text)
