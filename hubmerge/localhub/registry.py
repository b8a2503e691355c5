"""All repos of a Hub folder: `root/repos/<models|datasets|spaces>/<namespace>/<name>/`.

A new repo is built in the temporary folder and moved into place with its first commit. A deleted repo is moved to the
temporary folder and removed there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.moves import Moves
from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.operations import check_folders
from hubmerge.localhub.records import FileEntry, now
from hubmerge.localhub.refnames import HEADS
from hubmerge.localhub.refusals import BadRequest, Conflict, RepositoryMissing
from hubmerge.localhub.repository import PLURALS, Repository, Settings
from hubmerge.support.files import make_folder, rename_durably, sync_folder

LARGE_EXTENSIONS = (
    "7z", "arrow", "avif", "bin", "bmp", "bz2", "ckpt", "flac", "ftz", "gguf", "gif", "gz", "h5", "ico",
    "jpeg", "jpg", "joblib", "mlmodel", "model", "mp3", "mp4", "msgpack", "npy", "npz", "ogg", "onnx",
    "ot", "parquet", "pb", "pdf", "pickle", "pkl", "png", "pt", "pth", "rar", "safetensors", "tar",
    "tflite", "tgz", "tiff", "wasm", "wav", "webp", "xz", "zip", "zst",
)  # fmt: skip
LARGE_PATTERNS = (*(f"*.{extension}" for extension in LARGE_EXTENSIONS), "*tfevents*")
"""Name patterns of files that are always stored as large files, as in the `.gitattributes` of a new repo."""


def is_repo_id(repo_id: str) -> bool:
    """Return True if `repo_id` is a valid `namespace/name`; it is then safe as a path."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
    return (
        re.fullmatch(f"{part}/{part}", repo_id) is not None
        and not any(text in repo_id for text in ("..", "--"))
        and not repo_id.endswith(".git")
    )


def check_repo_id(repo_id: str) -> str:
    """Return `repo_id` if it is a valid `namespace/name`.

    Raises:
        BadRequest: it is not valid.
    """
    if not is_repo_id(repo_id):
        raise BadRequest(
            f"Invalid repo id {repo_id!r}: expected namespace/name of letters, digits, '-', '_' and '.', "
            "96 characters each at most, without '--', '..' or '.git' at the end."
        )
    return repo_id


MOST_REPOS = 10_000
"""Repos of one kind in one namespace."""
RESERVED = frozenset(
    {
        "api", "buckets", "chat", "collections", "datasets", "docs", "jobs", "join", "kernels", "lfs", "login",
        "logout", "models", "new", "oauth", "organizations", "papers", "settings", "spaces", "uploads", "v1", "v2",
        "xet",
    }
)  # fmt: skip
"""First parts of the addresses of a Hub that are not the name of a user or an organization."""


class Registry:
    """All repos of a Hub folder."""

    def __init__(self, root: Path, store: ObjectStore, temporary: TemporaryFolder) -> None:
        self._root = root
        self._store = store
        self._temporary = temporary
        self._moves = Moves(root, temporary)

    def _repository(self, kind: str, repo_id: str) -> Repository:
        check_repo_id(repo_id)
        lock = self._root / "locks" / f"{PLURALS[kind]}--{repo_id.replace('/', '--')}"
        return Repository(self._root / "repos" / PLURALS[kind] / repo_id, lock, self._temporary)

    def find(self, kind: str, repo_id: str) -> Repository | None:
        """Return a repo, or None if it does not exist."""
        try:
            repository = self._repository(kind, repo_id)
        except BadRequest:
            return None
        return repository if repository.exists() else None

    def all(self, kind: str) -> Iterator[tuple[Repository, Settings]]:
        """Yield all repos of a kind with their settings, in no fixed order."""
        for path in (self._root / "repos" / PLURALS[kind]).glob("*/*/repo.json"):
            repository = self._repository(kind, f"{path.parent.parent.name}/{path.parent.name}")
            with contextlib.suppress(RepositoryMissing):  # deleted in the meantime
                yield repository, repository.settings()

    def create(
        self,
        kind: str,
        repo_id: str,
        *,
        author: str,
        private: bool = False,
        gated: str | bool = False,
        sdk: str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Repository:
        """Create a repo with a first commit that adds `.gitattributes` and other files.

        Raises:
            BadRequest: the id is invalid or reserved, or a path would be both a file and a folder.
            Conflict: the repo already exists.
        """
        repository = self._free(kind, repo_id)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_PATTERNS).encode()
        contents = {".gitattributes": attributes, **(files or {})}
        tree = {path: FileEntry(self._store.add_blob(content), len(content)) for path, content in contents.items()}
        check_folders(tree)
        draft = self._temporary.new_path()
        draft.mkdir()
        building = Repository(draft, draft, self._temporary)
        building.write_settings(Settings(kind, repo_id, now(), private=private, gated=gated, sdk=sdk))
        first = building.write_commit(
            tree, parents=(), changed=list(tree), title="initial commit", message="", author=author
        )  # fmt: skip
        building.write_ref(HEADS, "main", first)
        try:
            self._place(draft, repository)
        finally:
            if draft.exists():
                self._temporary.remove_tree(draft)
        return repository

    def _free(self, kind: str, repo_id: str) -> Repository:
        """Return a repo that can be created.

        Raises:
            BadRequest: the id is invalid or reserved, or the namespace has too many repos.
        """
        repository = self._repository(kind, repo_id)
        namespace = repository.folder.parent
        if namespace.name in RESERVED:
            raise BadRequest(f"The namespace {namespace.name!r} is reserved.")
        if namespace.is_dir() and not repository.exists() and len(list(namespace.iterdir())) >= MOST_REPOS:
            raise BadRequest(f"{namespace.name} has {MOST_REPOS} {namespace.parent.name} and takes no more.")
        return repository

    def _place(self, source: Path, target: Repository, moved: tuple[str, str] | None = None) -> None:
        """Move a folder to the name of a repo; `moved` has the kind and the old id of an existing repo.

        Raises:
            Conflict: the name is in use.
        """
        final = target.folder
        make_folder(final.parent)
        with locked(self._root / "locks" / "names"):
            if final.exists():
                raise Conflict("You already created this repo.")
            plural, *new_id = final.parts[-3:]
            self._moves.reuse(plural, "/".join(new_id))
            if moved is not None:
                self._moves.record(plural, moved[1], "/".join(new_id))
            rename_durably(source, final)

    def new_id(self, kind: str, repo_id: str) -> str | None:
        """Return the present id of a repo that was moved from `repo_id`, or None."""
        if not is_repo_id(repo_id):
            return None
        new_id = self._moves.find(PLURALS[kind], repo_id, lambda found: self.find(kind, found) is not None)
        return new_id if new_id is not None and self.find(kind, new_id) is not None else None

    def delete(self, repository: Repository) -> None:
        """Remove a repo. Its files stay in the object store, because other repos may have them too."""
        with repository.locked(), locked(self._root / "locks" / "names"):
            settings = repository.settings()
            self._moves.forget(PLURALS[settings.kind], settings.id)
            self._temporary.remove_tree(repository.folder)

    def move(self, repository: Repository, repo_id: str) -> Repository:
        """Change the id of a repo. The old id leads to the new one until a repo is created under it.

        Raises:
            BadRequest: the new id is invalid or reserved.
            Conflict: a repo with this id exists.
        """
        with repository.locked():
            settings = repository.settings()
            target = self._free(settings.kind, repo_id)
            if target.exists():
                raise Conflict(f"{repo_id} already exists.")
            self._place(repository.folder, target, (settings.kind, settings.id))
            sync_folder(repository.folder.parent)
        return target
