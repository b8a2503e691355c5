"""Error answers of a Hub: status, `X-Error-Code` and message.

    Refusal
    ├── Moved                  307   the repo has another name now
    ├── BadRequest             400
    ├── BadCredentials         401   the token belongs to no user
    ├── LoginNeeded            401   an anonymous caller writes or asks for its account
    ├── Forbidden              403   a known caller without the permission
    ├── RepositoryMissing      404 (401 for an anonymous caller)   missing, or private to other users
    ├── RevisionMissing        404
    ├── EntryMissing           404
    ├── Gated                  403 (401 for an anonymous caller)
    ├── WrongMethod            405   the address is served, with other methods
    ├── Stalled                408   the rest of a body did not arrive
    ├── Conflict               409   it already exists
    ├── ParentMoved            412   `parentCommit` is no longer the head
    ├── TooLarge               413   a body, or a line of a commit
    ├── TooMany                429   uploads that the caller has not finished
    ├── NotServed              501   an address of the Hub that this server does not have
    └── DiskFull               507

The clients tell these apart by status and `X-Error-Code`, and `BadCredentials` by its exact message.
"""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - an answer, not a defect
    """An HTTP error answer."""

    status = 400
    code: str | None = None

    def __init__(self, message: str, *, headers: dict[str, str] | None = None, **extra: object) -> None:
        super().__init__(message)
        self.message = message
        self.headers = dict(headers or {})
        self.extra = extra


class Moved(Refusal):
    """The repo has another name now. Its new address is in the `Location` header."""

    status = 307

    def __init__(self, address: str) -> None:
        super().__init__(f"Temporary Redirect. Redirecting to {address}", headers={"Location": address})


class BadRequest(Refusal):
    """The request cannot be understood or would break the repo."""


class NotFound(Refusal):
    """A thing without an error code of its own is missing."""

    status = 404


class BadCredentials(Refusal):
    """The token belongs to no user. The clients recognize this case by the message."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Invalid credentials in Authorization header")


class LoginNeeded(Refusal):
    """The caller sent no token."""

    status = 401


class Forbidden(Refusal):
    """The caller is known and may not do this."""

    status = 403


class RepositoryMissing(Refusal):
    """The repo does not exist, or the caller may not know that it does."""

    status = 404
    code = "RepoNotFound"

    def __init__(self, *, anonymous: bool) -> None:
        super().__init__("Invalid username or password." if anonymous else "Repository not found")
        if anonymous:
            self.status = 401


class RevisionMissing(Refusal):
    """No branch, tag, pull request or commit of that name."""

    status = 404
    code = "RevisionNotFound"


class EntryMissing(Refusal):
    """No such file or folder at this commit."""

    status = 404
    code = "EntryNotFound"


class Gated(Refusal):
    """The files are for callers whose access request was accepted."""

    status = 403
    code = "GatedRepo"

    def __init__(self, repo_id: str, *, anonymous: bool) -> None:
        super().__init__(
            f"Access to {repo_id} is restricted. "
            + ("You must log in and be granted access." if anonymous else "You are not in the authorized list.")
        )
        if anonymous:
            self.status = 401


class WrongMethod(Refusal):
    """The address is served, with other methods."""

    status = 405

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method} is not served at this address. Use {allowed}.", headers={"Allow": allowed})


class Stalled(Refusal):
    """The rest of a body did not arrive in time."""

    status = 408


class TooMany(Refusal):
    """The caller has too many unfinished uploads. The clients wait and try again."""

    status = 429

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"Retry-After": "30"})


class NotServed(Refusal):
    """An address of the Hub that this server does not have."""

    status = 501


class DiskFull(Refusal):
    """The disk has no room for an upload."""

    status = 507


class TooLarge(Refusal):
    """The body or a part of it is larger than the server reads."""

    status = 413


class Conflict(Refusal):
    """It exists already."""

    status = 409


class ParentMoved(Refusal):
    """The branch has a newer head than the commit the caller built on."""

    status = 412
