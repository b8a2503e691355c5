"""All repos of a Hub folder: `root/repos/<models|datasets|spaces>/<namespace>/<name>/`.

A new repo is built in the temporary folder and moved into place with its first commit. A deleted repo is moved to the
temporary folder and removed there.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from hubmerge.localhub.durable import TemporaryFolder, locked
from hubmerge.localhub.objects import ObjectStore
from hubmerge.localhub.records import FileEntry, now
from hubmerge.localhub.refusals import BadRequest, Conflict, RepositoryMissing
from hubmerge.localhub.repository import HEADS, PLURALS, Repository, Settings
from hubmerge.support.files import make_folder, rename_durably, sync_folder

LARGE_EXTENSIONS = (
    "7z", "arrow", "avif", "bin", "bmp", "bz2", "ckpt", "flac", "ftz", "gguf", "gif", "gz", "h5", "ico",
    "jpeg", "jpg", "joblib", "mlmodel", "model", "mp3", "mp4", "msgpack", "npy", "npz", "ogg", "onnx",
    "ot", "parquet", "pb", "pdf", "pickle", "pkl", "png", "pt", "pth", "rar", "safetensors", "tar",
    "tflite", "tgz", "tiff", "wasm", "wav", "webp", "xz", "zip", "zst",
)  # fmt: skip
LARGE_PATTERNS = (*(f"*.{extension}" for extension in LARGE_EXTENSIONS), "*tfevents*")
"""Name patterns of files that are always stored as large files, as in the `.gitattributes` of a new repo."""


def check_repo_id(repo_id: str) -> str:
    """Return `repo_id` if it is a valid `namespace/name`.

    Raises:
        BadRequest: it is not valid.
    """
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", repo_id) or ".." in repo_id or "--" in repo_id or repo_id.endswith(".git"):
        raise BadRequest(
            f"Invalid repo id {repo_id!r}: expected namespace/name of letters, digits, '-', '_' and '.', "
            "96 characters each at most, without '--', '..' or '.git' at the end."
        )
    return repo_id


class Registry:
    """All repos of a Hub folder."""

    def __init__(self, root: Path, store: ObjectStore, temporary: TemporaryFolder) -> None:
        self._root = root
        self._store = store
        self._temporary = temporary

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
    ) -> Repository:
        """Create a repo with a first commit that adds `.gitattributes`.

        Raises:
            Conflict: the repo already exists.
        """
        repository = self._repository(kind, repo_id)
        attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE_PATTERNS).encode()
        entry = FileEntry(self._store.add_blob(attributes), len(attributes))
        draft = self._temporary.new_path()
        draft.mkdir()
        building = Repository(draft, draft, self._temporary)
        building.write_settings(Settings(kind, repo_id, now(), private=private, gated=gated, sdk=sdk))
        first = building.write_commit(
            {".gitattributes": entry},
            parents=(),
            changed=[".gitattributes"],
            title="initial commit",
            message="",
            author=author,
        )
        building.write_ref(HEADS, "main", first)
        try:
            self._place(draft, repository.folder)
        finally:
            if draft.exists():
                self._temporary.remove_tree(draft)
        return repository

    def _place(self, source: Path, final: Path) -> None:
        make_folder(final.parent)
        with locked(self._root / "locks" / "names"):
            if final.exists():
                raise Conflict("You already created this repo.")
            rename_durably(source, final)

    def delete(self, repository: Repository) -> None:
        """Remove a repo. Its files stay in the object store, because other repos may have them too."""
        with repository.locked():
            self._temporary.remove_tree(repository.folder)

    def move(self, repository: Repository, repo_id: str) -> Repository:
        """Change the id of a repo.

        Raises:
            Conflict: a repo with this id exists.
        """
        with repository.locked():
            target = self._repository(repository.settings().kind, repo_id)
            if target.exists():
                raise Conflict(f"{repo_id} already exists.")
            self._place(repository.folder, target.folder)
            sync_folder(repository.folder.parent)
        return target
