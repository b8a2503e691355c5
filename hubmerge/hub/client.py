"""Calls to the Hub: one client, bounded retries, and errors that name the repo and say what to do.

Some calls of the client library try again by themselves, most do not; here every call does, so that it does not matter
which is which. A fault that passes is one after which the very same call may succeed: no connection, a connection that
broke, an answer that is cut short or is not JSON, status 408, 429 or 5xx.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    OIDCError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import DISK_FULL, HubError, HubmergeError, MachineError
from hubmerge.support.redaction import without_token
from hubmerge.support.version import VERSION
from merge_recipes.references import COMMIT_PATTERN

Result = TypeVar("Result")

TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""What the client's HTTP library raises when a connection breaks; which library it is depends on its version."""

RETRIES = 5
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0
LONGEST_ASKED_SECONDS = 300.0
"""What a Hub that limits the rate of calls may ask for; where it asks for more, the run ends and says so."""

PATIENCE_SECONDS = 600.0
"""After so long nothing is tried again, for the client's own retries, too, wait as long as the Hub asks for."""

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_COMMIT = re.compile(rf"\b{COMMIT_PATTERN}\b")
_RATE_LIMIT = re.compile(r"\br=0\s*;\s*t=(\d+)")


class TransientError(ConnectionError):
    """Raise it inside `call` for an answer that is wrong now and may be right the next time."""


@functools.cache
def api() -> HfApi:
    """Return the client for the Hub that HF_ENDPOINT and HF_TOKEN name."""
    return HfApi(library_name="hubmerge", library_version=VERSION)


def no_token() -> bool:
    """Tell whether no access token is set, neither in HF_TOKEN nor by `hf auth login`."""
    return get_token() is None


def is_anonymous(error: Exception) -> bool:
    """Tell whether the Hub refused a call for which there was no token to show."""
    return status_of(error) == 401 and not os.environ.get("HF_OIDC_RESOURCE") and no_token()


def call(what: str, function: Callable[[], Result], *, sleep: Callable[[float], None] | None = None) -> Result:
    """Call `function`, and again after a fault that passes, at most `RETRIES` times.

    Waits double from one second, with jitter, up to thirty: about half a minute in all. A wait that the Hub asks for
    is honoured up to five minutes, and after ten minutes nothing is tried again.

    `what` names the thing asked for ("model me/x at main"), for the error.

    Raises:
        HubError: the Hub refused for good, or the faults did not pass.
        MachineError: what was fetched cannot be written down.
    """
    begin = time.monotonic()
    for attempt in range(RETRIES + 1):
        try:
            return function()
        except HubmergeError:
            raise
        except Exception as error:  # what lies between here and the Hub wraps the Hub's errors in many kinds of its own
            refuse_machine_fault(error, what)
            failure = from_the_hub(error)
            if failure is None:
                raise
            wait = _wait_seconds(failure, attempt)
            last = attempt == RETRIES or time.monotonic() - begin > PATIENCE_SECONDS
            if last or not is_transient(failure) or wait > LONGEST_ASKED_SECONDS:
                raise explain(failure, what) from error
        (sleep or time.sleep)(wait)
    raise AssertionError("unreachable")


def create_commit(repo: str, operations: Sequence[Any], title: str, **options: Any) -> str:
    """Make one commit in a model repo and return it; to be used inside `call`.

    Raises:
        TransientError: the Hub is at work on another commit to the same repo.
    """
    try:
        return api().create_commit(repo, operations, commit_message=title, **options).oid
    except HfHubHTTPError as error:
        if status_of(error) == 409:
            raise TransientError("the Hub is busy with another commit") from error
        raise


def from_the_hub(error: Exception) -> Exception | None:
    """Return what the Hub or the way to it did wrong: the error or what caused it, None if it was neither.

    An answer of the Hub says more than the loss of a connection, so it comes first.
    """
    if isinstance(error, (json.JSONDecodeError, TransientError)):
        return error
    chain = [link for link in causes(error) if not isinstance(link, LocalEntryNotFoundError)]
    answers = [link for link in chain if isinstance(link, HfHubHTTPError)]
    known = (TRANSPORT_ERROR, OfflineModeIsEnabled, OIDCError, HFValidationError, ConnectionError, TimeoutError)
    others = [link for link in chain if isinstance(link, known) or _is_short_download(link)]
    # The download functions raise LocalEntryNotFoundError for "no connection and not in the cache".
    missing = [error] if isinstance(error, LocalEntryNotFoundError) else []
    return next(iter([*answers, *others, *missing]), None)


def causes(error: BaseException) -> Iterator[Exception]:
    """The error, what caused it, what caused that, and so on."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, Exception):
            yield link
        link = link.__cause__ or link.__context__


def refuse_machine_fault(error: Exception, what: str) -> None:
    """Raise MachineError if the disk of this machine is behind an error that came out of a download."""
    for link in causes(error):
        if isinstance(link, OSError) and not isinstance(link, (HfHubHTTPError, ConnectionError, TimeoutError)):
            full = link.errno in DISK_FULL
            if full or (link.errno in _FORBIDDEN and link.filename):
                raise MachineError(
                    f"{what}: cannot be written to {link.filename or constants.HF_HUB_CACHE}: {link.strerror or link}",
                    hint="free some space" if full else "make the folder writable, or set HF_HOME to another one",
                ) from error


def _is_short_download(error: Exception) -> bool:
    """Tell whether the client found a downloaded file shorter than announced, for which it has no error of its own."""
    return type(error) is OSError and error.errno is None and "Consistency check failed" in str(error)


def is_transient(error: Exception) -> bool:
    """Tell whether the same call may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        status = status_of(error)
        return status is None or status in TRANSIENT_STATUS
    return not isinstance(error, (OfflineModeIsEnabled, OIDCError, HFValidationError, LocalEntryNotFoundError))


def status_of(error: Exception) -> int | None:
    """Return the HTTP status an error carries, if it carries one."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _wait_seconds(error: Exception, attempt: int) -> float:
    asked = asked_seconds(error)
    if asked is not None:
        return asked + 0.5
    wait: float = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
    return wait * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret


def asked_seconds(error: Exception) -> float | None:
    """Return how long the Hub asks to wait, from `Retry-After` or `RateLimit`; None if it does not say."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    exhausted = _RATE_LIMIT.search(response.headers.get("RateLimit", ""))
    if exhausted is not None:
        return float(exhausted[1])
    asked = response.headers.get("Retry-After", "").strip()
    return float(asked) if asked.isdigit() else None


def explain(error: Exception, what: str) -> HubError:
    """Turn what the client raised into a sentence about `what`, with a way out."""
    endpoint = api().endpoint
    status = status_of(error)
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{what}: the repo is gated, and this token has not been granted access",
            hint=f"ask for access on {endpoint}, then run again with the token of that account in HF_TOKEN",
        )
    if isinstance(error, RepositoryNotFoundError) and is_anonymous(error):
        return HubError(
            f"{what}: no access token is set, and without one there is no such repo to be seen on {endpoint}",
            hint="for a private repo run `hf auth login`, or set HF_TOKEN; else check the name for a typing error",
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{what}: no such repo on {endpoint}, or it is private and this token may not see it",
            hint="check the name for a typing error; for a private repo set HF_TOKEN; "
            "a target repo that was deleted is made anew by the next run",
        )
    if isinstance(error, RevisionNotFoundError) and _COMMIT.search(what):
        return HubError(
            f"{what}: the commit is gone: the repo's history was rewritten after the commit was locked",
            hint="put the commit back on a branch of the repo; to merge what is there now, "
            "publish to another repo, or run `hubmerge lock --update` if nothing is published yet",
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"{what}: the repo exists, but this revision does not",
            hint="name a branch, a tag, refs/pr/N or a 40-character commit that is there",
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{what}: not in the repo at this revision", hint="check the name of the file or folder")
    if isinstance(error, DisabledRepoError):
        return HubError(f"{what}: the Hub has disabled this repo", hint="remove it from the recipe")
    if isinstance(error, HFValidationError):
        return HubError(f"{what}: not a valid repo name", hint="the form is owner/name")
    if isinstance(error, OIDCError):
        return HubError(
            f"{what}: HF_OIDC_RESOURCE asks for trusted publishing, but this job has no identity to show",
            hint="grant the job `id-token: write`, or unset HF_OIDC_RESOURCE and set HF_TOKEN",
        )
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(f"{what}: HF_HUB_OFFLINE is set and the answer is not in the cache", hint="unset it")
    if status == 401:
        return HubError(
            f"{what}: the token was not accepted; it is wrong, revoked or expired",
            hint="set HF_TOKEN to a valid token and run again: what is done stays done",
        )
    if status == 403:
        return HubError(
            f"{what}: this token has no permission to do that",
            hint="use a token with write access to the repo",
        )
    if status == 412:
        return HubError(f"{what}: somebody else committed to the repo meanwhile", hint="run again")
    if status == 429:
        asked = asked_seconds(error)
        when = f"run again in {asked:.0f} seconds" if asked is not None else "run again later"
        return HubError(f"{what}: the Hub limits the rate of calls and did not relent", hint=when)
    detail = without_token(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    return HubError(f"{what}: {endpoint} could not be used: {detail}", hint="check the network, or run again later")
