"""Users and their permissions: `root/users.json`, created at the first start with one administrator and a random token.

    {"signing_key": "...", "users": [{"name": "local", "token": "hf_...", "role": "write", "admin": true, "orgs": []}]}

A user with the role `write` may write to the namespace of that name and to those of its `orgs`; an administrator may
write to any namespace and read any repo. A user with the role `read` writes nowhere. An organization is its name, or a
name with a role of the Hub in it: `{"name": "team", "role": "read"}`; with the role `read`, a member writes nothing
there. A user with the role `fineGrained` has a token for some accounts and repos only:

    {"name": "ci", "token": "hf_...", "role": "fineGrained", "scopes": {"ci/merged": ["repo.write"]}}

`"quota_gb": 10` limits the bytes that a user can send, in units of 1,000,000,000 bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubmerge.errors import MachineError
from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.refusals import BadCredentials

READ_SCOPES = frozenset({"repo.content.read", "repo.write"})
WRITE_SCOPES = frozenset({"repo.write"})
CHANGE_SCOPES = WRITE_SCOPES | {"discussion.write"}
MOST_GIGABYTES = 1e9


@dataclass(frozen=True)
class User:
    """Account with a token.

    Attributes:
        name: the name of the account.
        token: the token.
        role: the role of the token: read, write or fineGrained.
        admin: True if the account may write everywhere.
        orgs: the role of the account in each of its organizations.
        scopes: the permissions of a fine-grained token, by the name of an account or a repo.
        quota_bytes: how many bytes the account can send; None for no limit.
    """

    name: str
    token: str
    role: str = "write"
    admin: bool = False
    orgs: Mapping[str, str] = field(default_factory=dict)
    scopes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    quota_bytes: int | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> User:
        """Return the user of an entry in the file of users."""
        orgs = [{"name": org} if isinstance(org, str) else dict(org) for org in entry.get("orgs", ())]
        return cls(
            name=str(entry["name"]),
            token=str(entry["token"]),
            role=str(entry.get("role", "write")),
            admin=bool(entry.get("admin", False)),
            orgs={str(org["name"]): str(org.get("role", "write")) for org in orgs},
            scopes={str(name): frozenset(map(str, given)) for name, given in entry.get("scopes", {}).items()},
            quota_bytes=read_quota(entry),
        )

    def owns(self, namespace: str, repo_id: str | None = None) -> bool:
        """Return True if this user may read private repos of `namespace`, or the private repo `repo_id` there."""
        belongs = self.admin or namespace == self.name or namespace in self.orgs
        return belongs and (self.role != "fineGrained" or self._is_granted(READ_SCOPES, namespace, repo_id))

    @property
    def changes_something(self) -> bool:
        """True if the token allows changes somewhere."""
        if self.role == "fineGrained":
            return any(CHANGE_SCOPES & granted for granted in self.scopes.values())
        return self.role in ("write", "admin")

    def may_write(self, namespace: str, repo_id: str | None = None) -> bool:
        """Return True if this user may create and change repos of `namespace`, or change the repo `repo_id` there."""
        if not (self.admin or namespace == self.name or self.orgs.get(namespace, "read") != "read"):
            return False
        if self.role == "fineGrained":
            return self._is_granted(WRITE_SCOPES, namespace, repo_id)
        return self.role in ("write", "admin")

    def _is_granted(self, scopes: frozenset[str], namespace: str, repo_id: str | None) -> bool:
        granted = self.scopes.get(namespace, frozenset()) | self.scopes.get(repo_id or "", frozenset())
        return bool(granted & scopes)


def read_quota(entry: Mapping[str, Any]) -> int | None:
    """Return the quota of a user in bytes, or None for none.

    Raises:
        ValueError: it is not a number from 0 on.
    """
    quota = entry.get("quota_gb")
    if quota is None:
        return None
    if isinstance(quota, bool) or not isinstance(quota, (int, float)) or not 0 <= quota < MOST_GIGABYTES:
        raise ValueError(f"quota_gb is {quota!r}, expected a number from 0 on")
    return int(quota * 1e9)


class Users:
    """Users of a Hub folder, read once at start."""

    def __init__(self, root: Path, temporary: TemporaryFolder) -> None:
        path = root / "users.json"
        with locked(root / "locks" / "users"):
            if not path.exists():
                first = {"name": "local", "token": "hf_" + secrets.token_hex(17), "role": "write", "admin": True}
                content = {"signing_key": secrets.token_hex(32), "users": [{**first, "orgs": []}]}
                temporary.write_json(path, content, mode=0o600)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            self.users = tuple(map(User.of, content["users"]))
            self._signing_key = bytes.fromhex(content["signing_key"])
            self.first = self.users[0]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise MachineError(
                f"{path} has no valid list of users: {error!r}",
                hint=f"correct the file, or let the next start write a new one: mv {path} {path}.old",
                file=str(path),
            ) from error

    def authenticate(self, authorization: str | None) -> User | None:
        """Return the user of an `Authorization` header, or None if there is no header.

        Raises:
            BadCredentials: the token belongs to no user.
        """
        if not authorization:
            return None
        scheme, _, token = authorization.partition(" ")
        for user in self.users:
            if scheme.lower() == "bearer" and hmac.compare_digest(user.token.encode(), token.strip().encode()):
                return user
        raise BadCredentials

    def find(self, name: str) -> User | None:
        """Return the user of a name, or None if there is none."""
        return next((user for user in self.users if user.name == name), None)

    def sign(self, text: str) -> str:
        """Return a signature of `text`, for upload addresses that contain their permission."""
        return hmac.new(self._signing_key, text.encode(), hashlib.sha256).hexdigest()
