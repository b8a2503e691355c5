"""Users and their permissions: `root/users.json`, created at the first start with one administrator and a random token.

    {"signing_key": "...", "users": [{"name": "local", "token": "hf_...", "role": "write", "admin": true, "orgs": []}]}

A user with the role `write` may write to the namespace of that name and to those of its `orgs`; an administrator may
write to any namespace and read any repo. A user with the role `read` writes nowhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.refusals import BadCredentials


@dataclass(frozen=True)
class User:
    """Account with a token."""

    name: str
    token: str
    role: str = "write"
    admin: bool = False
    orgs: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Return True if this user may read private repos of `namespace`."""
        return self.admin or namespace == self.name or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        """Return True if this user may create and change repos of `namespace`."""
        return self.role in ("write", "admin") and self.owns(namespace)


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
            self.users = tuple(
                User(
                    name=str(entry["name"]),
                    token=str(entry["token"]),
                    role=str(entry.get("role", "write")),
                    admin=bool(entry.get("admin", False)),
                    orgs=tuple(str(name) for name in entry.get("orgs", ())),
                )
                for entry in content["users"]
            )
            self._signing_key = bytes.fromhex(content["signing_key"])
            self.first = self.users[0]
        except (ValueError, KeyError, TypeError, IndexError) as error:
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
