"""Records of a repo on disk: file entries, trees and commits.

A tree is named by the SHA-1 that git gives it, so equal trees are stored once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from hubmerge.localhub.objects import git_oid, lfs_pointer


def now() -> str:
    """Return the time in the clients' format: UTC, ISO 8601, milliseconds, `Z`."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class FileEntry:
    """A file at a commit. `oid` is the git blob SHA-1 (of the pointer, for a large file); `size` is in bytes."""

    oid: str
    size: int
    sha256: str | None = None

    @classmethod
    def large(cls, sha256: str, size: int) -> FileEntry:
        """Return the entry of a large file."""
        return cls(git_oid("blob", lfs_pointer(sha256, size)), size, sha256)

    @property
    def content_hash(self) -> str:
        """The hash of the content for the clients: SHA-256 of a large file, git blob SHA-1 of a regular one."""
        return self.sha256 or self.oid

    def lfs(self) -> dict[str, object] | None:
        """Return the `lfs` object of the API, or None for a regular file."""
        if self.sha256 is None:
            return None
        return {
            "oid": self.sha256,
            "sha256": self.sha256,
            "size": self.size,
            "pointerSize": len(lfs_pointer(self.sha256, self.size)),
        }


Tree = Mapping[str, FileEntry]
"""Files of a commit: path -> entry."""


def folder_oids(tree: Tree) -> dict[str, str]:
    """Return the git name of each folder of a tree; the root is ``""``."""
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, entry in tree.items():
        parent, _, name = path.rpartition("/")
        children.setdefault(parent, {})[name] = ("100644", entry.oid)
        while parent:
            parent = parent.rpartition("/")[0]
            children.setdefault(parent, {})
    oids: dict[str, str] = {}
    for folder in sorted(children, key=lambda name: name.count("/") + 1 if name else 0, reverse=True):
        # Git sorts a folder as if its name ended with a slash.
        listing = sorted(children[folder].items(), key=lambda item: item[0] + ("/" if item[1][0] == "40000" else ""))
        content = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for name, (mode, oid) in listing)
        oids[folder] = git_oid("tree", content)
        if folder:
            parent, _, name = folder.rpartition("/")
            children[parent][name] = ("40000", oids[folder])
    return oids


def tree_to_json(tree: Tree) -> bytes:
    """Return a tree as JSON, one file per line, sorted by path."""
    lines = [json.dumps([path, *asdict(tree[path]).values()], ensure_ascii=False) for path in sorted(tree)]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def tree_from_json(content: bytes) -> dict[str, FileEntry]:
    """Read a tree that `tree_to_json` wrote."""
    return {path: FileEntry(oid, size, sha256) for path, oid, size, sha256 in json.loads(content)}


@dataclass(frozen=True)
class Commit:
    """Commit, named by the SHA-1 of its content."""

    tree: str
    parents: tuple[str, ...]
    title: str
    message: str
    author: str
    date: str
    changed: tuple[str, ...]
    """The paths that differ from the parent."""

    def content(self) -> bytes:
        """Return the commit as JSON."""
        return json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False).encode()

    @property
    def id(self) -> str:
        """The name: 40 hex digits."""
        return hashlib.sha1(b"commit\0" + self.content(), usedforsecurity=False).hexdigest()

    @classmethod
    def from_json(cls, content: bytes) -> Commit:
        """Read a commit that `content` wrote."""
        fields: dict[str, Any] = json.loads(content)
        return cls(**{**fields, "parents": tuple(fields["parents"]), "changed": tuple(fields["changed"])})
