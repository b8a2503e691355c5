"""Routes for accounts: the caller's own, other users and organizations."""

from __future__ import annotations

from typing import Any

from hubmerge.localhub.refusals import NotFound
from hubmerge.localhub.repository import PLURALS
from hubmerge.localhub.users import User
from hubmerge.localhub.web.calls import Call, route


def whoami(call: Call) -> Any:
    """Return the account of the caller."""
    user = call.login()
    account: dict[str, Any] = {
        "type": "user",
        "id": user.name,
        "name": user.name,
        "fullname": user.name,
        "isPro": False,
        "orgs": [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()],
        "auth": {"type": "access_token", "accessToken": describe_token(call, user)},
    }
    # Only an embedded Hub has administrators, who may write to every namespace.
    return {**account, "isAdmin": True} if user.admin else account


def describe_token(call: Call, user: User) -> dict[str, Any]:
    """Return the token of a user, with its permissions if it is fine-grained."""
    token: dict[str, Any] = {"displayName": user.name, "role": user.role}
    if user.role == "fineGrained":
        scoped = [
            {"entity": {"type": entity_type(call, name), "name": name}, "permissions": sorted(permissions)}
            for name, permissions in user.scopes.items()
        ]
        token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": scoped}
    return token


def entity_type(call: Call, name: str) -> str:
    """Return what a permission is for: a user, an organization or a kind of repo."""
    if "/" in name:
        return next((kind for kind in PLURALS if call.site.registry.find(kind, name) is not None), "model")
    return "org" if is_organization(call, name) else "user"


def is_organization(call: Call, name: str) -> bool:
    """Return True if a namespace is not that of a user, and somebody belongs to it or has a repo in it."""
    if call.site.users.find(name) is not None:
        return False
    if any(name in user.orgs for user in call.site.users.users):
        return True
    return any(settings.namespace == name for kind in PLURALS for _, settings in call.site.registry.all(kind))


def describe_user(call: Call) -> Any:
    """Return the public description of a user."""
    user = call.site.users.find(call.params["name"])
    if user is None:
        raise NotFound("This user does not exist")
    orgs = [{"name": name, "fullname": name, "avatarUrl": ""} for name in user.orgs]
    return {"user": user.name, "fullname": user.name, "avatarUrl": "", "type": "user", "isPro": False, "orgs": orgs}


def describe_organization(call: Call) -> Any:
    """Return the public description of an organization."""
    name = call.params["name"]
    if not is_organization(call, name):
        raise NotFound("This organization does not exist")
    members = sum(name in user.orgs for user in call.site.users.users)
    return {"name": name, "fullname": name, "avatarUrl": "", "type": "org", "numUsers": members}


ROUTES = [
    route("GET", "/api/whoami-v2", whoami),
    route("GET", "/api/users/{name}/overview", describe_user),
    route("GET", "/api/organizations/{name}/overview", describe_organization),
]
