"""Users and their permissions: `root/users.json`, made at the first start with one administrator and a random token.

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
    """A person or a program with a token."""

    name: str
    token: str
    role: str = "write"
    admin: bool = False
    orgs: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        """Return True if private repos of `namespace` are this user's to read."""
        return self.admin or namespace == self.name or namespace in self.orgs

    def may_write(self, namespace: str) -> bool:
        """Return True if this user may create and change repos of `namespace`."""
        return self.role in ("write", "admin") and self.owns(namespace)


class Users:
    """The users of one Hub folder, read once at start."""

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
                hint="correct the file, or move it away: the next start writes a new one",
            ) from error

    def authenticate(self, authorization: str | None) -> User | None:
        """Find the user of an `Authorization` header; None if there is none.

        Raises:
            BadCredentials: the token belongs to nobody.
        """
        if not authorization:
            return None
        scheme, _, token = authorization.partition(" ")
        for user in self.users:
            if scheme.lower() == "bearer" and hmac.compare_digest(user.token.encode(), token.strip().encode()):
                return user
        raise BadCredentials

    def named(self, name: str) -> User | None:
        """Find a user by name."""
        return next((user for user in self.users if user.name == name), None)

    def sign(self, text: str) -> str:
        """Sign `text`, for addresses that carry their own permission (uploads of large files send no token)."""
        return hmac.new(self._signing_key, text.encode(), hashlib.sha256).hexdigest()
