"""Where checkpoints come from: repos on the Hub and folders of this machine, behind one way of asking."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, find_weights
from hubmerge.checkpoints.formats.select_files import companion_files, model_files
from hubmerge.errors import CheckpointError, DatasetError
from hubmerge.hub import fetch
from hubmerge.support.hashing import file_digest
from hubmerge.support.text import short_commit
from merge_recipes import Lock, LockedModel, ModelReference


@dataclass(frozen=True)
class Source:
    """A model to read, at a commit that cannot move.

    `adapter` is what is applied to it. An entry of the stream may also be an adapter alone: `base` is the model that
    it is then applied to.
    """

    reference: ModelReference
    commit: str
    adapter: Source | None = None
    base: Source | None = None
    is_adapter: bool = False

    @property
    def label(self) -> str:
        """What messages call it: the folder, or repo@commit."""
        if self.reference.is_local:
            return self.reference.path
        return "/".join(filter(None, (self.reference.path, self.subfolder))) + f"@{short_commit(self.commit)}"

    @classmethod
    def of(cls, locked: LockedModel, base: Source | None = None) -> Source:
        """Return the source a line of the lock names."""
        model, adapter = replace(locked.reference, adapter=None), locked.reference.adapter
        if adapter is None or locked.adapter_commit is None:
            return cls(model, locked.commit, base=base)
        return cls(model, locked.commit, cls(adapter, locked.adapter_commit, is_adapter=True), base)

    @property
    def subfolder(self) -> str:
        """Where in the repo the model lies, empty for the top."""
        return self.reference.subfolder or ""

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.reference.is_local

    def name_of(self, file: fetch.RemoteFile) -> str:
        """What one of its files is called from the folder of the model on, whatever subfolder that is."""
        return file.path.removeprefix(f"{self.subfolder}/" if self.subfolder else "")


def files_of(source: Source, *, companions: bool = False) -> tuple[fetch.RemoteFile, ...]:
    """Return the files that a merge reads of the model or adapter itself, those of its `adapter` not among them.

    With `companions` also tokenizer, processor, licence and card.

    Raises:
        CheckpointError: the repo holds no weights, or an index that is none.
    """
    if source.is_local:
        folder = Path(source.reference.path)
        names = _read_files(folder, adapter=source.is_adapter) | (local_companions(folder) if companions else set())
        return tuple(fetch.RemoteFile(name, (folder / name).stat().st_size) for name in sorted(names))
    repo, commit = source.reference.path, source.commit
    files = {source.name_of(file): file for file in fetch.list_files(repo, commit, source.subfolder)}

    def read(name: str) -> bytes:
        return fetch.read_file(repo, commit, files[name])

    names = model_files(files, read, source.label, adapter=source.is_adapter)
    if files and not source.is_adapter and ADAPTER_CONFIG not in names:
        find_weights(files, source.label)
    if companions:
        names |= companion_files(files, read)
    return tuple(files[name] for name in sorted(names))


def fetch_folder(source: Source, *, companions: bool = False) -> Path:
    """Return a folder of this machine that holds the source's files, downloading what the Hub cache lacks.

    Raises:
        CheckpointError: a local folder changed since it was locked.
    """
    if not source.is_local:
        files = files_of(source, companions=companions)
        return fetch.download(source.reference.path, source.commit, files) / source.subfolder
    folder = Path(source.reference.path)
    if folder_digest(folder) != source.commit:
        raise CheckpointError(
            f"{folder}: the files changed since the stream was locked",
            hint="put the old files back, or start over with another --work-dir",
        )
    return folder


def cached_bytes(source: Source, files: Iterable[fetch.RemoteFile]) -> int:
    """Return how many bytes of a Hub source's files are in the Hub cache already."""
    return sum(file.size for file in files if fetch.is_cached(source.reference.path, source.commit, file.path))


class SourceResolver:
    """Resolves revisions to commits: from a lock that already names them, else from the Hub or the folder.

    Without `models`, the locks hold the base model and the datasets only.
    """

    def __init__(self, held: Iterable[Lock] = (), *, models: bool = True) -> None:
        self._held: dict[tuple[str, str, str | None], str] = {}
        for lock in held:
            for model in (lock.base_model, *(lock.models if models else ())):
                key = ("model", model.reference.path, model.reference.revision)
                self._held.setdefault(key, model.commit)
                if model.reference.adapter is not None and model.adapter_commit is not None:
                    adapter = ("model", model.reference.adapter.path, model.reference.adapter.revision)
                    self._held.setdefault(adapter, model.adapter_commit)
            for dataset in lock.datasets:
                self._held.setdefault(("dataset", dataset.path, dataset.revision), dataset.commit)

    def look_ahead(self, base: ModelReference, models: Iterable[ModelReference], *, classes: bool) -> None:
        """Hash the local folders that a merge will read, on all CPUs.

        Meanwhile the model classes are imported if they are needed: with `classes`, or if nothing is known of that of a
        base model in a folder. What is wrong with a folder `resolve` tells.
        """
        folders = {
            Path(one.path)
            for reference in (base, *models)
            for one in (reference, reference.adapter)
            if one is not None and one.is_local and ("model", one.path, one.revision) not in self._held
        }
        if folders:
            # Both import torch, which takes a second, and is not needed by those who only resolve.
            from hubmerge.checkpoints.model_class.model_class import import_classes
            from hubmerge.executor.parallel.scheduling import available_cpus

            with ThreadPoolExecutor(available_cpus()) as pool:
                if classes or (base.is_local and not _knows_class(Path(base.path))):
                    pool.submit(import_classes)
                list(pool.map(_hashed, sorted(folders)))

    def resolve(self, kind: str, path: str, revision: str | None) -> str:
        """Return the 40-hex commit, or `sha256:...` over the files of a local folder.

        A reference that the lock of an earlier run of this stream names keeps its commit.
        """
        key = (kind, path, revision)
        if key not in self._held:
            if not Path(path).is_absolute():
                self._held[key] = fetch.resolve_commit(kind, path, revision)
            else:
                self._held[key] = folder_digest(Path(path)) if kind == "model" else tree_digest(Path(path))
        return self._held[key]


def _knows_class(folder: Path) -> bool:
    from hubmerge.checkpoints import open_checkpoint
    from hubmerge.checkpoints.matching.names import parameter_shapes
    from hubmerge.checkpoints.model_class.model_class import known_class

    try:
        with open_checkpoint(folder, folder.name) as checkpoint:
            return known_class(checkpoint.config, parameter_shapes(checkpoint.tensors)) is not None
    except CheckpointError:
        return False


def local_companions(folder: Path) -> set[str]:
    """Return the names of the files in a local model folder that make its weights usable, `config.json` among them.

    Raises:
        CheckpointError: there is no such folder.
    """
    return companion_files(_files_below(folder), lambda name: (folder / name).read_bytes())


def folder_digest(folder: Path) -> str:
    """Return `sha256:<hex>` over names and contents of the files that a merge would read from a local folder.

    Raises:
        CheckpointError: there is no such folder, or an index in it that is none.
    """
    return _digest(folder, sorted(_read_files(folder, adapter=False) | _read_files(folder, adapter=True)))


def _read_files(folder: Path, *, adapter: bool) -> set[str]:
    """The names of the files that a merge would read from a local folder, which holds a model or an adapter."""
    return model_files(_files_below(folder), lambda name: (folder / name).read_bytes(), str(folder), adapter=adapter)


def _files_below(folder: Path) -> set[str]:
    """The names of all files below a local model folder, those in hidden folders not among them."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder",
            hint="a local model is a folder with config.json and weights; a + or @ in its name is written \\+ or \\@",
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
        DatasetError: there is no such folder.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder", hint="a local dataset is a folder with data files")
    return _digest(folder, sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def _hashed(folder: Path) -> None:
    with suppress(CheckpointError, OSError):
        folder_digest(folder)


def _digest(folder: Path, names: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return f"sha256:{whole.hexdigest()}"
