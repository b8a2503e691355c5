"""Messages for failed requests to the Hub: the cause and a way out."""

from __future__ import annotations

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
from hubmerge.hub.client import endpoint
from hubmerge.hub.failures import is_anonymous, requested_wait, status_of
from hubmerge.support.redaction import without_token


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
    "check the spelling; for a private repo set HF_TOKEN; a deleted target repo is created again by the next run",
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
        "set HF_TOKEN to a valid token and run again; finished steps are kept",
    ),
    403: Explanation("this token has no permission for this request", "use a token with write access to the repo"),
    412: Explanation("another writer committed to the repo in the meantime", "run again"),
}


def explain(
    failure: Exception,
    subject: str,
    *,
    repo: str | None = None,
    commit: str | None = None,
    file: str | None = None,
) -> HubError:
    """Turn a failure of the Hub or of the connection into an error for users.

    Args:
        failure: an error of the client, see `hub_failure`.
        subject: what was requested, for example "model me/x at main"; the message starts with it.
        repo: the repo that was asked for.
        commit: the commit that was asked for; a missing revision then means that the history was rewritten.
        file: the file that was asked for.
    """
    explanation = _explanation(failure, pinned=commit is not None)
    address = endpoint()
    return HubError(
        f"{subject}: {explanation.cause.replace('{endpoint}', address)}",
        hint=explanation.hint.replace("{endpoint}", address),
        repo=repo,
        commit=commit,
        file=file,
    )


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
    return _BY_STATUS[status] if status in _BY_STATUS else _unknown(failure)


def _unknown(failure: Exception) -> Explanation:
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    return Explanation(
        f"the request to {{endpoint}} failed: {without_token(lines[0])}", "check the network, or run again later"
    )
