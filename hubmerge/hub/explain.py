"""Messages for failed requests to the Hub: the cause and a way out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    OIDCError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hubmerge.errors import HubError
from hubmerge.hub.answers import hub_sentences
from hubmerge.hub.client import endpoint
from hubmerge.hub.failures import REFUSED_INSIDE, TRANSPORT_ERROR, is_anonymous, requested_wait, status_of
from hubmerge.hub.proxies import proxy_variable
from hubmerge.support.redaction import without_token

PUBLIC_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Explanation:
    """The cause of a failure and a hint; `{endpoint}` is replaced by the address of the Hub."""

    cause: str
    hint: str


NOT_VISIBLE = Explanation(
    "the repo is not visible on {endpoint} without an access token",
    "for a private repo run `hf auth login` or set HF_TOKEN; otherwise check the spelling",
)
NO_REPO = Explanation(
    "no repo of this name on {endpoint}, or it is private and this token cannot read it",
    "check the spelling (write a folder of this machine as ./folder); for a private repo set HF_TOKEN; "
    "a deleted target repo is created again by the next run",
)
NO_COMMIT = Explanation(
    "the commit no longer exists: the repo's history was rewritten after the commit was locked",
    "restore the commit on a branch of the repo; to merge the current content instead, publish to another repo, or "
    "run `hubmerge lock --update` if nothing is published yet",
)
NO_REVISION = Explanation(
    "the repo has no branch, tag or commit of this name",
    "write a branch, a tag, refs/pr/N or a commit of 40 hex digits that the repo has",
)
RATE_LIMITED = "rate limited (HTTP 429)"

_BY_TYPE: tuple[tuple[type[Exception], Explanation], ...] = (
    (
        GatedRepoError,
        Explanation(
            "the repo is gated, and this token has no access to it",
            "request access on {endpoint}, set HF_TOKEN to a token of that account, and run again",
        ),
    ),
    (
        RemoteEntryNotFoundError,
        Explanation("not found in the repo at this revision", "check the spelling of the file or folder"),
    ),
    (DisabledRepoError, Explanation("the Hub has disabled this repo", "remove it from the recipe")),
    (HFValidationError, Explanation("not a valid repo name", "write it as owner/name")),
    (
        OIDCError,
        Explanation(
            "HF_OIDC_RESOURCE asks for trusted publishing, but this job has no identity token",
            "grant the job `id-token: write`, or unset HF_OIDC_RESOURCE and set HF_TOKEN",
        ),
    ),
    (
        OfflineModeIsEnabled,
        Explanation("HF_HUB_OFFLINE is set and the response is not in the cache", "run `unset HF_HUB_OFFLINE`"),
    ),
)
_BY_STATUS = {
    401: Explanation(
        "the Hub rejected the token: it is wrong, revoked or expired",
        "set HF_TOKEN to a valid token, or run `hf auth login`, and run the command again",
    ),
    403: Explanation("this token has no permission for this request", "use a token with write access to the repo"),
    402: Explanation("the Hub asks for payment (HTTP 402)", "look at the storage and the plan of the account"),
    404: Explanation("the Hub found nothing there (HTTP 404)", "check the spelling of HF_ENDPOINT, repo and revision"),
    409: Explanation("the Hub reports a conflict (HTTP 409)", "run again"),
    412: Explanation("another writer committed to the repo in the meantime", "run again"),
    413: Explanation("too large for the Hub (HTTP 413)", "set `publish: {max_shard_size: 2GB}` in the recipe"),
}
_USUAL = re.compile(r"Repository not found\.?|Invalid username or password\.?|Invalid rev id: \S+")
"""Sentences of the Hub for a missing repo or revision, which add nothing to the cause."""

BAD_CARD = Explanation(
    "the Hub refused the metadata of README.md",
    "change `publish:` in the recipe, or the metadata at the top of README.md in the target repo",
)


def explain(
    failure: Exception,
    subject: str,
    *,
    repo: str | None = None,
    commit: str | None = None,
    file: str | None = None,
) -> HubError:
    """Turn a failure of the Hub or of the connection into an error for users, with what the Hub wrote about it.

    Args:
        failure: an error of the client, see `hub_failure`.
        subject: what was requested, for example "model me/x at main"; the message starts with it.
        repo: the repo that was asked for.
        commit: the commit that was asked for; a missing revision then means that the history was rewritten.
        file: the file that was asked for.
    """
    explanation = _explanation(failure, pinned=commit is not None)
    address = endpoint()
    cause = explanation.cause.replace("{endpoint}", address)
    return HubError(
        with_sentences(f"{subject}: {cause}", failure),
        hint=explanation.hint.replace("{endpoint}", address),
        repo=repo,
        commit=commit,
        file=file,
    )


def with_sentences(message: str, failure: Exception) -> str:
    """Return a message with what the Hub wrote about the failure, unless it is a usual phrase for "not found"."""
    sentences = hub_sentences(failure)
    missing = isinstance(failure, (RepositoryNotFoundError, RevisionNotFoundError))
    if not sentences or sentences in message or (missing and _USUAL.fullmatch(sentences)):
        return message
    return f"{message}; the Hub says: {sentences}"


def _explanation(failure: Exception, *, pinned: bool) -> Explanation:
    if isinstance(failure, RepositoryNotFoundError) and not isinstance(failure, GatedRepoError):
        return NOT_VISIBLE if is_anonymous(failure) else NO_REPO
    if isinstance(failure, RevisionNotFoundError):
        return NO_COMMIT if pinned else NO_REVISION
    by_type = next((explanation for kind, explanation in _BY_TYPE if isinstance(failure, kind)), None)
    if by_type is not None:
        return by_type
    status = status_of(failure)
    if status == 429:
        seconds = requested_wait(failure)
        return Explanation(RATE_LIMITED, f"run again {'later' if seconds is None else f'in {seconds:.0f} seconds'}")
    if status == 400 and _url_of(failure).endswith("/api/validate-yaml"):
        return BAD_CARD
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return _unknown(failure) if status is None else _by_status(status)


def _by_status(status: int) -> Explanation:
    if status < 500:
        return Explanation(f"the Hub refused the request (HTTP {status})", "change what the Hub names, and run again")
    return Explanation(f"the request to {{endpoint}} failed: HTTP {status}", "run again later")


def _url_of(failure: Exception) -> str:
    return str(getattr(getattr(failure, "response", None), "url", ""))


def _unknown(failure: Exception) -> Explanation:
    if isinstance(failure, ValueError) and REFUSED_INSIDE.search(str(failure)):
        return Explanation("the Hub refused the request", "change what the Hub names, and run again")
    if isinstance(failure, json.JSONDecodeError):
        return Explanation("the answer of {endpoint} is not JSON", "check HF_ENDPOINT, or run again later")
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    hint = "check the network, or run again later"
    if endpoint() != PUBLIC_HUB:
        hint = "check that a Hub runs at HF_ENDPOINT={endpoint}; for the public Hub: unset HF_ENDPOINT"
    proxy = proxy_variable(endpoint()) if isinstance(failure, (ConnectionError, TRANSPORT_ERROR)) else None
    if proxy is not None:
        hint = f"check the proxy that {proxy} names; without it: unset {proxy}"
    return Explanation(f"the request to {{endpoint}} failed: {without_token(lines[0])}", hint)
