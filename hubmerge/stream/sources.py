"""Sources of checkpoints: repos on the Hub and local folders, behind one interface."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, LORA_FILES, find_weights
from hubmerge.checkpoints.formats.select_files import select_auxiliary_files, select_model_files
from hubmerge.checkpoints.origin import Origin
from hubmerge.errors import CheckpointError, DatasetError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile
from hubmerge.support.hashing import file_digest
from hubmerge.support.text import short_commit
from merge_recipes import Lock, LockedModel, ModelReference
from merge_recipes.references import STAGE, is_local_path, is_stage_path


@dataclass(frozen=True)
class Source:
    """A model or an adapter at a commit.

    Attributes:
        reference: Repo or local folder.
        commit: 40-hex commit, or `sha256:...` over the files of a local folder.
        adapter: Adapter that is applied to the model, None for the model alone.
        base: Base model of the stream, to which an entry that is an adapter alone is applied.
        is_adapter: True for an adapter.
    """

    reference: ModelReference
    commit: str
    adapter: Source | None = None
    base: Source | None = None
    is_adapter: bool = False

    @property
    def label(self) -> str:
        """Name in messages: the folder, or repo@commit."""
        if self.reference.is_local:
            written = self.reference.written_path
            return written if written is not None and is_stage_path(written) else self.reference.path
        return "/".join(filter(None, (self.reference.path, self.subfolder))) + f"@{short_commit(self.commit)}"

    @property
    def origin(self) -> Origin:
        """Place in messages and in the fields of errors."""
        if self.is_local:
            return Origin(self.label, folder=Path(self.reference.path))
        return Origin(self.label, repo=self.reference.path, commit=self.commit)

    @classmethod
    def of(cls, locked: LockedModel, base: Source | None = None) -> Source:
        """Return the source of a locked model."""
        model, adapter = replace(locked.reference, adapter=None), locked.reference.adapter
        if adapter is None or locked.adapter_commit is None:
            return cls(model, locked.commit, base=base)
        return cls(model, locked.commit, cls(adapter, locked.adapter_commit, is_adapter=True), base)

    @property
    def subfolder(self) -> str:
        """Folder of the model in the repo, empty for the top."""
        return self.reference.subfolder or ""

    @property
    def is_local(self) -> bool:
        """True for a local folder."""
        return self.reference.is_local

    def name_of(self, file: RemoteFile) -> str:
        """Return the path of a file relative to the folder of the model."""
        return file.path.removeprefix(f"{self.subfolder}/" if self.subfolder else "")


def files_of(source: Source, *, auxiliary: bool = False) -> tuple[RemoteFile, ...]:
    """Return the files that a merge reads, without those of `source.adapter`.

    Args:
        source: A model or an adapter.
        auxiliary: Include tokenizer, processor, license and card.

    Raises:
        CheckpointError: The repo has no weights, or its index is not valid.
    """
    if source.is_local:
        folder = Path(source.reference.path)
        names = _read_files(folder, adapter=source.is_adapter) | (local_auxiliary_files(folder) if auxiliary else set())
        return tuple(RemoteFile(name, (folder / name).stat().st_size) for name in sorted(names))
    return _files_on_hub(replace(source, adapter=None, base=None), auxiliary=auxiliary)


@lru_cache(maxsize=1024)
def _files_on_hub(source: Source, *, auxiliary: bool) -> tuple[RemoteFile, ...]:
    """Return the files that a merge reads from a repo; the result is cached, because a commit never changes."""
    repo, commit = source.reference.path, source.commit
    files = {source.name_of(file): file for file in fetch.list_files(repo, commit, source.subfolder)}

    def read(name: str) -> bytes:
        return fetch.read_file(repo, commit, files[name])

    names = select_model_files(files, read, source.origin, adapter=source.is_adapter)
    if files and not source.is_adapter and names.isdisjoint((ADAPTER_CONFIG, *LORA_FILES)):
        find_weights(files, source.origin)
    if auxiliary:
        names |= select_auxiliary_files(files, read)
    return tuple(files[name] for name in sorted(names))


def fetch_folder(source: Source, *, auxiliary: bool = False) -> Path:
    """Return a local folder with the files of a source, after downloading those missing from the Hub cache.

    Args:
        source: A model or an adapter.
        auxiliary: Include tokenizer, processor, license and card.

    Raises:
        CheckpointError: A local folder changed since its commit was locked.
    """
    if not source.is_local:
        files = files_of(source, auxiliary=auxiliary)
        return fetch.download(source.reference.path, source.commit, files) / source.subfolder
    folder = Path(source.reference.path)
    if folder_digest(folder) != source.commit:
        raise CheckpointError(
            f"files changed since the stream was locked: {folder}",
            hint="restore the files, or start over with another --work-dir",
            file=str(folder),
        )
    return folder


def cached_bytes(source: Source, files: Iterable[RemoteFile]) -> int:
    """Return the size in bytes of those files of a Hub source that are in the Hub cache."""
    return sum(file.size for file in files if fetch.is_cached(source.reference.path, source.commit, file.path))


class SourceResolver:
    """Resolution of revisions to commits: from locks that pin them, else from the Hub or the local folder."""

    def __init__(self, locks: Iterable[Lock] = (), *, models: bool = True) -> None:
        """Pin the commits of locks.

        Args:
            locks: Locks. Where two name one reference, the first of them counts.
            models: Pin the models as well, not only base model and datasets.
        """
        self._pinned: dict[tuple[str, str, str | None], str] = {}
        for lock in locks:
            tokenizers = [] if lock.tokenizer is None else [lock.tokenizer]
            own = [lock.base_model, *tokenizers, *(lock.models if models else ())]
            own += [one for stage in lock.stages for one in stage.pinned(models=models)]
            for model in own:
                key = ("model", model.reference.path, model.reference.revision)
                if model.reference.stage is not None:
                    continue  # the digest of its recipe and its models, which may have changed
                self._pinned.setdefault(key, model.commit)
                if model.reference.adapter is not None and model.adapter_commit is not None:
                    adapter = ("model", model.reference.adapter.path, model.reference.adapter.revision)
                    self._pinned.setdefault(adapter, model.adapter_commit)
            for dataset in lock.datasets:
                if not is_local_path(dataset.path):  # the rows of a folder are read as they are now
                    self._pinned.setdefault(("dataset", dataset.path, dataset.revision), dataset.commit)

    def pin_stage(self, name: str, digest: str) -> None:
        """Pin the digest of the merged model of a stage."""
        self._pinned["model", f"{STAGE}{name}", None] = digest

    def hash_folders(self, base: ModelReference, models: Iterable[ModelReference], *, classes: bool) -> None:
        """Hash the local folders of a merge on all CPUs, and import model classes meanwhile if they are needed.

        Errors are left to `resolve`, which reads the folders again.

        Args:
            base: The base model.
            models: The checkpoints.
            classes: Import the classes. They are also imported if the class of a local base model is not known yet.
        """
        folders = {
            Path(one.path)
            for reference in (base, *models)
            for one in (reference, reference.adapter)
            if one is not None and one.is_local and ("model", one.path, one.revision) not in self._pinned
        }
        if folders:
            # Both import torch, which takes a second.
            from hubmerge.checkpoints.model_class.class_lookup import import_classes
            from hubmerge.executor.parallel.scheduling import available_cpus

            with ThreadPoolExecutor(available_cpus()) as pool:
                if classes or (base.is_local and not _knows_class(Path(base.path))):
                    pool.submit(import_classes)
                list(pool.map(_hash_quietly, sorted(folders)))

    def resolve(self, kind: str, path: str, revision: str | None) -> str:
        """Return the pinned commit of a reference, else its 40-hex commit, or `sha256:...` of a local folder."""
        key = (kind, path, revision)
        if key not in self._pinned:
            if not Path(path).is_absolute():
                self._pinned[key] = fetch.resolve_commit(kind, path, revision)
            else:
                self._pinned[key] = folder_digest(Path(path)) if kind == "model" else tree_digest(Path(path))
        return self._pinned[key]


def _knows_class(folder: Path) -> bool:
    from hubmerge.checkpoints import open_checkpoint
    from hubmerge.checkpoints.matching.names import parameter_shapes
    from hubmerge.checkpoints.model_class.model_class import known_class

    try:
        with open_checkpoint(folder, folder.name) as checkpoint:
            return known_class(checkpoint.config, parameter_shapes(checkpoint.tensors)) is not None
    except CheckpointError:
        return False


def local_auxiliary_files(folder: Path) -> set[str]:
    """Return the names of the files in a local model folder that its weights need, such as config and tokenizer.

    Raises:
        CheckpointError: The folder does not exist.
    """
    return select_auxiliary_files(files_below(folder), lambda name: (folder / name).read_bytes())


def folder_digest(folder: Path) -> str:
    """Return `sha256:<hex>` over names and contents of the files that a merge reads from a local folder.

    Raises:
        CheckpointError: The folder does not exist, or its index is not valid.
    """
    return _digest(folder, sorted(_read_files(folder, adapter=False) | _read_files(folder, adapter=True)))


def _read_files(folder: Path, *, adapter: bool) -> set[str]:
    """Return the names of the files that a merge reads from the local folder of a model or an adapter."""
    origin = Origin(str(folder), folder=folder)
    names = files_below(folder)
    return select_model_files(names, lambda name: (folder / name).read_bytes(), origin, adapter=adapter)


def files_below(folder: Path) -> set[str]:
    """Return the names of all files below a local model folder, without hidden folders."""
    if not folder.is_dir():
        raise CheckpointError(
            f"model folder not found: {folder}",
            hint="a local model is a folder with config.json and weights; a + or @ in its name is written \\+ or \\@",
            file=str(folder),
        )
    found = set()
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place) / file for file in files)
        found |= {path.relative_to(folder).as_posix() for path in paths if path.is_file()}
    return found


def tree_digest(folder: Path) -> str:
    """Return `sha256:<hex>` over names and contents of all files below a local dataset folder.

    Raises:
        DatasetError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"dataset folder not found: {folder}", hint="a local dataset is a folder with data files", file=str(folder)
        )
    return _digest(folder, sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def _hash_quietly(folder: Path) -> None:
    with suppress(CheckpointError, OSError):
        folder_digest(folder)


def _digest(folder: Path, names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
