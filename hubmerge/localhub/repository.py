"""Repo on disk.

    repo.json              settings
    refs/heads/main        one small file per branch, tag and pull request: the commit it points to
    commits/<id>           immutable
    trees/<oid>            immutable

The files, the tree and the commit are written first; replacing the ref makes the commit visible. If the process is
killed before that, the ref stays as it was, and the written files are unreferenced.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from hubmerge.localhub.discussions import Discussions
from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.operations import Operation, Put, apply_operations
from hubmerge.localhub.records import Commit, FileEntry, Tree, folder_oids, now, tree_from_json, tree_to_json
from hubmerge.localhub.refnames import CONVERTS, DEFAULT_BRANCH, HEADS, PULLS, TAGS, check_ref_name
from hubmerge.localhub.refusals import BadRequest, Conflict, ParentMoved, RepositoryMissing, RevisionMissing
from hubmerge.support.files import sync_folder
from hubmerge.support.names import is_commit

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
PLURALS = {kind: plural for plural, kind in KINDS.items()}
SHORTEST_COMMIT = 7
MAX_REFS = 10_000
"""Branches of a repo, and tags of a repo."""


@dataclass(frozen=True)
class Settings:
    """Properties of a repo apart from its files. `access` maps a user name to pending, accepted or rejected."""

    kind: str
    id: str
    created_at: str
    private: bool = False
    gated: str | bool = False
    sdk: str | None = None
    access: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The part of the id before the slash."""
        return self.id.partition("/")[0]


def is_same_commit(name: str, commit_id: str) -> bool:
    """Return True if `name` is a commit id, or its first 7 or more digits."""
    return len(name) >= SHORTEST_COMMIT and commit_id.startswith(name)


class Repository:
    """Files, commits and refs of one repo."""

    def __init__(self, folder: Path, lock: Path, temporary: TemporaryFolder) -> None:
        self.folder = folder
        self._lock = lock
        self._temporary = temporary

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the repo against all other threads and processes.

        Raises:
            RepositoryMissing: the repo was deleted or moved in the meantime.
        """
        with locked(self._lock):
            if not self.exists():
                raise RepositoryMissing(anonymous=False)
            yield

    def exists(self) -> bool:
        """Return True if the repo exists."""
        return (self.folder / "repo.json").is_file()

    def settings(self) -> Settings:
        """Read the settings. Kind and id come from the path of the folder, so a repo is moved by one rename.

        Raises:
            RepositoryMissing: the repo does not exist.
        """
        try:
            content = json.loads((self.folder / "repo.json").read_bytes())
        except FileNotFoundError as error:
            raise RepositoryMissing(anonymous=False) from error
        plural, namespace, name = self.folder.parts[-3:]
        return Settings(kind=KINDS[plural], id=f"{namespace}/{name}", **content)

    def write_settings(self, settings: Settings) -> None:
        """Replace the settings."""
        content = {name: value for name, value in asdict(settings).items() if name not in ("kind", "id")}
        self._temporary.write_json(self.folder / "repo.json", content)

    def change_settings(self, **changes: Any) -> Settings:
        """Change some settings."""
        with self.locked():
            settings = replace(self.settings(), **changes)
            self.write_settings(settings)
            return settings

    def change_access(self, user: str, status: str) -> None:
        """Set the answer to a user's request for access."""
        with self.locked():
            settings = self.settings()
            access = {**settings.access, user: {"status": status, "timestamp": now()}}
            self.write_settings(replace(settings, access=access))

    # refs

    def _ref(self, kind: str, name: str) -> Path:
        return self.folder / "refs" / kind / quote(name, safe="")

    def refs(self, kind: str) -> dict[str, str]:
        """Return the refs of a kind (heads, tags, pr, convert): name -> commit, sorted by name."""
        folder = self.folder / "refs" / kind
        found = {}
        for path in folder.iterdir() if folder.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                found[unquote(path.name)] = path.read_text(encoding="ascii").strip()
        return dict(sorted(found.items()))

    def ref(self, kind: str, name: str) -> str | None:
        """Return the commit that a ref points to, or None if the ref does not exist."""
        try:
            return self._ref(kind, name).read_text(encoding="ascii").strip()
        except (FileNotFoundError, OSError):
            return None

    def write_ref(self, kind: str, name: str, commit_id: str) -> None:
        """Point a ref to a commit."""
        self._temporary.write(self._ref(kind, name), commit_id.encode())

    def create_ref(self, kind: str, name: str, commit_id: str, *, overwrite: bool = False) -> None:
        """Create a branch or tag, or move an existing one if `overwrite` is set.

        Raises:
            BadRequest: the name is invalid, or the repo has too many refs of this kind.
            Conflict: the ref already exists.
        """
        check_ref_name(name)
        with self.locked():
            exists = self.ref(kind, name) is not None
            if exists and not overwrite:
                raise Conflict(f"Reference refs/{kind}/{name} already exists.")
            if not exists and len(self.refs(kind)) >= MAX_REFS:
                raise BadRequest(f"The repo has {MAX_REFS} refs in refs/{kind}. Delete some first.")
            self.write_ref(kind, name, commit_id)

    def delete_ref(self, kind: str, name: str) -> None:
        """Remove a branch or tag.

        Raises:
            RevisionMissing: the ref does not exist.
        """
        with self.locked():
            if self.ref(kind, name) is None:
                raise RevisionMissing(f"Reference refs/{kind}/{name} does not exist.")
            self._ref(kind, name).unlink()
            sync_folder(self._ref(kind, name).parent)

    @property
    def discussions(self) -> Discussions:
        """The records of discussions and pull requests. Hold the lock while a record is written."""
        return Discussions(self.folder / "discussions", self._temporary)

    def locate(self, revision: str) -> tuple[str, str]:
        """Return kind and name of the branch or pull request that a revision names.

        Raises:
            RevisionMissing: it names no branch and no pull request.
        """
        if revision.startswith("refs/pr/"):
            kind, name = PULLS, revision.removeprefix("refs/pr/")
        else:
            kind, name = HEADS, DEFAULT_BRANCH if revision == "HEAD" else revision.removeprefix("refs/heads/")
        if self.ref(kind, name) is None:
            raise RevisionMissing(f"Invalid rev id: {revision}. It is not a branch or pull request of this repo.")
        return kind, name

    def resolve(self, revision: str) -> str:
        """Return the commit of a branch, tag, pull request, full ref name or commit id; `HEAD` is the default branch.

        Raises:
            RevisionMissing: the repo has no revision of this name.
        """
        candidates = [(HEADS, revision), (TAGS, revision)]
        for kind in (HEADS, TAGS, PULLS, CONVERTS):
            if revision.startswith(f"refs/{kind}/"):
                candidates.append((kind, revision.removeprefix(f"refs/{kind}/")))
        if revision == "HEAD":
            candidates.append((HEADS, DEFAULT_BRANCH))
        for kind, name in candidates:
            commit_id = self.ref(kind, name)
            if commit_id is not None:
                return commit_id
        if is_commit(revision) and (self.folder / "commits" / revision).is_file():
            return revision
        raise RevisionMissing(f"Invalid rev id: {revision}")

    # commits

    def commit(self, commit_id: str) -> Commit:
        """Read a commit."""
        return Commit.from_json((self.folder / "commits" / commit_id).read_bytes())

    def tree(self, commit_id: str) -> dict[str, FileEntry]:
        """Return the files of a commit."""
        return tree_from_json((self.folder / "trees" / self.commit(commit_id).tree).read_bytes())

    def large_files(self) -> frozenset[str]:
        """Return the SHA-256 of the large files of all commits."""
        trees = (tree_from_json(path.read_bytes()) for path in (self.folder / "trees").iterdir())
        return frozenset(entry.sha256 for tree in trees for entry in tree.values() if entry.sha256)

    def history(self, commit_id: str) -> Iterator[tuple[str, Commit]]:
        """Yield a commit and its ancestors, newest first."""
        following: str | None = commit_id
        while following is not None:
            commit = self.commit(following)
            yield following, commit
            following = commit.parents[0] if commit.parents else None

    def write_commit(
        self, tree: Tree, *, parents: tuple[str, ...], changed: Sequence[str], title: str, message: str, author: str
    ) -> str:
        """Write a tree and a commit without changing a ref, and return the commit's id."""
        tree_oid = folder_oids(tree)[""]
        if not (self.folder / "trees" / tree_oid).exists():
            self._temporary.write(self.folder / "trees" / tree_oid, tree_to_json(tree))
        commit = Commit(tree_oid, parents, title, message, author, now(), tuple(sorted(changed)))
        self._temporary.write(self.folder / "commits" / commit.id, commit.content())
        return commit.id

    def write_change(self, head: str, operations: Sequence[Operation], *, title: str, message: str, author: str) -> str:
        """Write the commit that operations make of a commit without changing a ref, and return its id.

        Raises:
            EntryMissing: a path to delete does not exist.
            BadRequest: a path would be both a file and a folder.
        """
        before = self.tree(head)
        after = apply_operations(before, operations)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} | {
            operation.path for operation in operations if isinstance(operation, Put)
        }
        return self.write_commit(
            after, parents=(head,), changed=sorted(changed), title=title, message=message, author=author
        )

    def apply(
        self,
        kind: str,
        name: str,
        operations: Sequence[Operation],
        *,
        title: str,
        message: str,
        author: str,
        parent: str | None = None,
    ) -> str:
        """Commit operations on top of a branch or pull request, and return the new commit.

        Raises:
            ParentMoved: `parent` is given and is not the head.
            EntryMissing: a path to delete does not exist.
            BadRequest: a path would be both a file and a folder.
        """
        with self.locked():
            head = self.ref(kind, name)
            if head is None:
                raise RevisionMissing(f"Invalid rev id: {name}")
            if parent is not None and not is_same_commit(parent, head):
                raise ParentMoved(
                    f"A commit has happened since. Please refresh and try again. (parentCommit {parent}, head {head})"
                )
            commit_id = self.write_change(head, operations, title=title, message=message, author=author)
            self.write_ref(kind, name, commit_id)
            return commit_id
