"""Permission to publish to a target repo: asked for before anything is merged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hubmerge.errors import HubError
from hubmerge.hub.client import api, endpoint, has_token
from hubmerge.hub.failures import status_of
from hubmerge.hub.retry import call

_CREATING_ROLES = frozenset({"admin", "write", "contributor"})
"""Roles in an organization whose members may create repos there."""

_CREATING_SCOPES = frozenset({"repo.write"})
_NO_ROUTE = frozenset({404, 405, 501})


@dataclass(frozen=True)
class Account:
    """The account of the access token, as the Hub describes it.

    Attributes:
        name: the name of the account.
        role: the role of the token: read, write or fineGrained; empty if the Hub does not say.
        roles: the role of the account in each of its organizations; empty if the Hub does not say.
        scopes: the permissions of a fine-grained token by the name of an account or a repo.
        everywhere: True if the account may write to every namespace, as an administrator of an embedded Hub may.
    """

    name: str
    role: str
    roles: Mapping[str, str]
    scopes: Mapping[str, frozenset[str]]
    everywhere: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Account:
        """Return the account in an answer of `whoami`."""
        token = _mapping(_mapping(values.get("auth")).get("accessToken"))
        scoped = _mapping(token.get("fineGrained")).get("scoped")
        scopes: dict[str, frozenset[str]] = {}
        for scope in _mappings(scoped):
            name = str(_mapping(scope.get("entity")).get("name", ""))
            scopes[name] = scopes.get(name, frozenset()) | frozenset(map(str, scope.get("permissions") or ()))
        return cls(
            name=str(values.get("name", "")),
            role=str(token.get("role") or ""),
            roles={str(org.get("name")): str(org.get("roleInOrg") or "") for org in _mappings(values.get("orgs"))},
            scopes=scopes,
            everywhere=values.get("isAdmin") is True,
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> Iterable[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def check_permission(repo: str, *, exists: bool) -> None:
    """Check that the access token may publish to a target repo, or create it.

    Args:
        repo: the target repo, owner/name.
        exists: True if the repo exists and the token can see it.

    Raises:
        HubError: there is no token, the Hub rejects it, or it may not write to the repo or create it.
    """
    namespace = repo.partition("/")[0]
    if not has_token():
        raise HubError(
            f"publishing to {repo} on {endpoint()} needs a token with write access",
            hint="run `hf auth login`, or set HF_TOKEN",
            repo=repo,
        )
    if os.environ.get("HF_OIDC_RESOURCE"):
        return  # a token of trusted publishing belongs to one repo and to no account
    account = Account.of(call(f"permission to publish to {repo}", lambda: api().whoami(), repo=repo))
    if account.role == "read":
        raise _refused(repo, "this token is read-only")
    if account.role == "fineGrained" and not _in_scope(account, repo, namespace):
        raise _refused(repo, f"this fine-grained token has no write permission for {namespace}")
    if exists:
        _check_write(repo)
    elif namespace != account.name and not account.everywhere:
        _check_namespace(repo, namespace, account)


def _in_scope(account: Account, repo: str, namespace: str) -> bool:
    granted = account.scopes.get(namespace, frozenset()) | account.scopes.get(repo, frozenset())
    return bool(granted & _CREATING_SCOPES)


def _check_write(repo: str) -> None:
    """Ask the Hub whether the token may write to an existing repo."""

    def ask() -> None:
        try:
            api().auth_check(repo, write=True)
        except RepositoryNotFoundError:
            raise
        except HfHubHTTPError as error:
            if status_of(error) not in _NO_ROUTE:
                raise

    call(f"permission to publish to {repo}", ask, repo=repo)


def _check_namespace(repo: str, namespace: str, account: Account) -> None:
    """Check that the account may create repos in the namespace of an organization."""
    role = account.roles.get(namespace)
    if role is None:
        raise _refused(repo, f"the account {account.name} has no permission there: {_owner(namespace)}")
    if role and role not in _CREATING_ROLES:
        member = f"the account {account.name} has the role {role} in the organization {namespace}"
        raise _refused(repo, f"{member}, and no permission to create a repo there")


def _owner(namespace: str) -> str:
    """Return what a namespace is: another account, an organization of other people, or nothing."""
    for kind, describe in (
        ("an organization that it does not belong to", api().get_organization_overview),
        ("another account", api().get_user_overview),
    ):
        try:
            call(f"account {namespace}", partial(describe, namespace))
        except HubError as error:
            if not isinstance(error.__cause__, HfHubHTTPError) or status_of(error.__cause__) not in _NO_ROUTE:
                return "it belongs to somebody else"
        else:
            return f"{namespace} is {kind}"
    return f"there is no account and no organization {namespace} on {endpoint()}"


def _refused(repo: str, cause: str) -> HubError:
    namespace = repo.partition("/")[0]
    return HubError(
        f"publishing to {repo}: {cause}",
        hint=f"set HF_TOKEN to a token with write access to {namespace} from {endpoint()}/settings/tokens, or write "
        "another repo under publish.repo",
        repo=repo,
    )
