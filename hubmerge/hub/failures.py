"""Classification of failed requests: whose failure it is, its HTTP status, and whether a retry can succeed."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    OIDCError,
    RepositoryNotFoundError,
)

from hubmerge.errors import DISK_FULL, MachineError
from hubmerge.hub.client import has_token

TRANSPORT_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]
"""Base class of broken connections in the client's HTTP library, which depends on the client's version."""

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses after which a retry can succeed."""

REFUSED_INSIDE = re.compile(r"LFS batch API returned errors|improperly formatted|Malformed response from")
"""Text of the client's errors for an answer with status 200 that refuses or cannot be read."""

_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_RATE_LIMIT = re.compile(r"\br=0\s*;\s*t=(\d+)")


class TransientError(ConnectionError):
    """A wrong response that may be right after a retry. Raise it inside `call`."""


def causes(error: BaseException) -> Iterator[Exception]:
    """Yield an error, its cause, the cause of that, and so on."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, Exception):
            yield link
        link = link.__cause__ or link.__context__


def hub_failure(error: Exception) -> Exception | None:
    """Return the failure of the Hub or of the connection behind an error, or None if it has another cause.

    Libraries wrap these failures in errors of their own. A response of the Hub comes before a broken connection,
    because it says more. The client itself fails on some bodies of refusals; the response is then an error's context.
    """
    if isinstance(error, TransientError):
        return error
    chain = [link for link in causes(error) if not isinstance(link, LocalEntryNotFoundError)]
    responses: list[Exception] = [link for link in chain if isinstance(link, HfHubHTTPError)]
    responses += [link for link in chain if status_of(link) is not None]
    if not responses and isinstance(error, json.JSONDecodeError):
        return error
    if not responses and isinstance(error, ValueError) and REFUSED_INSIDE.search(str(error)):
        return error
    known = (TRANSPORT_ERROR, OfflineModeIsEnabled, OIDCError, HFValidationError, ConnectionError, TimeoutError)
    others = [link for link in chain if isinstance(link, known) or _is_short_download(link)]
    # The download functions raise LocalEntryNotFoundError for "no connection and not in the cache".
    missing = [error] if isinstance(error, LocalEntryNotFoundError) else []
    failure = next(iter([*responses, *others, *missing]), None)
    if constants.HF_HUB_OFFLINE and isinstance(failure, ConnectionError) and not isinstance(failure, HfHubHTTPError):
        return OfflineModeIsEnabled(str(failure))  # the datasets library raises its own class
    return failure


def _is_short_download(error: Exception) -> bool:
    # The client has no error class for a downloaded file that is shorter than announced.
    return type(error) is OSError and error.errno is None and "Consistency check failed" in str(error)


def disk_error(error: Exception, subject: str) -> MachineError | None:
    """Return a MachineError if a download failed because of this machine's disk, or None."""
    for link in causes(error):
        if not isinstance(link, OSError) or isinstance(link, (HfHubHTTPError, ConnectionError, TimeoutError)):
            continue
        full = link.errno in DISK_FULL
        if full or (link.errno in _FORBIDDEN and link.filename):
            path = link.filename or constants.HF_HUB_CACHE
            return MachineError(
                f"{subject}: cannot write to {path}: {link.strerror or link}",
                hint=_room_hint(link) if full else "make the folder writable, or set HF_HOME to another folder",
                file=str(path),
            )
    return None


def _room_hint(error: OSError) -> str:
    return "raise the limit for files: ulimit -f unlimited" if error.errno == errno.EFBIG else "free disk space"


def is_transient(failure: Exception) -> bool:
    """Return True if a retry can succeed."""
    status = status_of(failure)
    if isinstance(failure, HfHubHTTPError) or status is not None:
        return status is None or status in TRANSIENT_STATUS
    if isinstance(failure, ValueError) and REFUSED_INSIDE.search(str(failure)):
        return False
    return not isinstance(failure, (OfflineModeIsEnabled, OIDCError, HFValidationError, LocalEntryNotFoundError))


def is_outage(error: Exception) -> bool:
    """Return True if an error is that of a Hub that cannot be reached or does not work, whatever was requested."""
    chain = list(causes(error))
    answers = [link for link in chain if isinstance(link, HfHubHTTPError)]
    if answers:
        return any(is_transient(link) for link in answers)
    if constants.HF_HUB_OFFLINE:
        return False
    return any(isinstance(link, (TRANSPORT_ERROR, ConnectionError, TimeoutError)) for link in chain)


def is_missing_repo(error: Exception) -> bool:
    """Return True if the Hub has no repo of the requested name, or none that the token can see."""
    return any(
        isinstance(link, RepositoryNotFoundError) and not isinstance(link, GatedRepoError) for link in causes(error)
    )


def is_anonymous(failure: Exception) -> bool:
    """Return True if the Hub refused a request that was sent without an access token."""
    return status_of(failure) == 401 and not os.environ.get("HF_OIDC_RESOURCE") and not has_token()


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error, or None if it has none."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def requested_wait(failure: Exception) -> float | None:
    """Return the seconds that the Hub asks to wait, from `Retry-After` or `RateLimit`, or None if it does not say."""
    response = getattr(failure, "response", None)
    if response is None:
        return None
    exhausted = _RATE_LIMIT.search(response.headers.get("RateLimit", ""))
    if exhausted is not None:
        return float(exhausted[1])
    seconds = response.headers.get("Retry-After", "").strip()
    return float(seconds) if seconds.isdigit() else None
