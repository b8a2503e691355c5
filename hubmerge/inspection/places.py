"""Models as people name them: a folder, a repo at a revision, or one of these with an adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from hubmerge.checkpoints import AdaptedCheckpoint, Checkpoint, Origin, TensorInfo, base_model_of, open_adapter
from hubmerge.checkpoints.checkpoint import TensorSource
from hubmerge.checkpoints.formats.weight_file import open_weight_file
from hubmerge.errors import CheckpointError, UsageError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile, is_sha256
from hubmerge.stream.open_source import adapter_config, open_for_planning, open_source
from hubmerge.stream.sources import Source, fetch_folder, files_of, folder_digest
from hubmerge.support.hashing import file_digest, git_blob_digest
from hubmerge.support.names import ACCUMULATED_FILE, MANIFEST_FILE, PARTS_FILE
from merge_recipes import ModelReference


@dataclass(frozen=True)
class ModelPlace:
    """A model that is neither part of a stream nor locked.

    Attributes:
        label: its name for people: the folder as it was written, or repo@commit.
        source: the model at a commit, with its adapter.
    """

    label: str
    source: Source

    @classmethod
    def find(cls, place: str) -> ModelPlace:
        """Return the model that a text names. An adapter alone is applied to the base model that its config names.

        Args:
            place: a folder, or `owner/name[/subfolder][@revision][+adapter]`.

        Raises:
            UsageError: the folder is missing.
            HubError: the repo or the revision is missing.
            CheckpointError: the base model of an adapter is unknown.
        """
        source = _source(place)
        if source.adapter is None and fetch.is_adapter(files_of(source)):
            adapter = replace(source, is_adapter=True, commit=_adapter_commit(source))
            source = replace(_base_of(adapter, place), adapter=adapter)
        label = place if source.is_local and source.adapter is None else _label(source)
        return cls(label, source)

    def open(self, *, weights: bool) -> Checkpoint:
        """Open the model; of a repo only the headers are read unless `weights` is True. Folders can be read always.

        Raises:
            CheckpointError: the files are not a model, or the adapter does not fit it.
        """
        model = replace(self.source, adapter=None)
        opened = open_source(model) if weights and not model.is_local else open_for_planning(model)
        adapter = self.source.adapter
        if adapter is None:
            return opened
        folder = Path(adapter.reference.path) if adapter.is_local else fetch_folder(adapter)
        return AdaptedCheckpoint(opened, open_adapter(folder, adapter.origin))

    @cached_property
    def _files(self) -> Mapping[str, RemoteFile]:
        return {self.source.name_of(file): file for file in files_of(self.source)}

    def has_equal_file(self, name: str, other: ModelPlace, other_name: str) -> bool:
        """Return True if a file has the content of a file of another model, by size and digest. Nothing is downloaded.

        Of models with adapters no file stands for a tensor, so that none is equal.
        """
        if self.source.adapter is not None or other.source.adapter is not None:
            return False
        one, two = self._files.get(name), other._files.get(other_name)
        if one is None or two is None or one.size != two.size:
            return False
        # The Hub lists git's digest of small files.
        listed = [file.digest for place, file in ((self, one), (other, two)) if not place.source.is_local]
        digest_of = file_digest if all(map(is_sha256, listed)) else git_blob_digest
        digests = [
            digest_of(Path(place.source.reference.path) / file.path) if place.source.is_local else file.digest
            for place, file in ((self, one), (other, two))
        ]
        return digests[0] == digests[1]


class StatePlace(ModelPlace):
    """A folder with a state: the accumulated deltas and the state parts of a method, as tensors."""

    def open(self, *, weights: bool) -> Checkpoint:
        """Open the tensors of the state, which can be read always.

        Raises:
            CheckpointError: a file is not valid.
        """
        del weights
        folder = Path(self.source.reference.path)
        origin = Origin(self.label, folder=folder)
        sources: dict[str, TensorSource] = {}
        tensors: dict[str, TensorInfo] = {}
        for name in (ACCUMULATED_FILE, PARTS_FILE):
            if (folder / name).is_file():
                sources[name], found, _ = open_weight_file(folder / name, origin.in_file(name))
                tensors |= found
        return Checkpoint(origin, tensors, {}, sources)


def is_state(place: str) -> bool:
    """Return True for a folder with a state."""
    return all(os.path.isfile(os.path.join(place, name)) for name in (MANIFEST_FILE, ACCUMULATED_FILE))  # noqa: PTH113, PTH118 - a Path raises for long names


def places_to_compare(one: str, other: str) -> tuple[ModelPlace, ModelPlace]:
    """Return two models, or two states in folders.

    Raises:
        UsageError: one is a state and the other is not.
        UsageError: a folder is missing.
        HubError: a repo or a revision is missing.
        CheckpointError: the base model of an adapter is unknown.
    """
    states = [place for place in (one, other) if is_state(place)]
    if len(states) == 1:
        raise UsageError(
            f"{states[0]} is a state, whose tensors are sums of changes; the other place is a model",
            hint="name the folders of two states, or their two merged models",
        )
    if states:
        first, second = (StatePlace(place, _source(place)) for place in (one, other))
        return first, second
    return ModelPlace.find(one), ModelPlace.find(other)


def _label(source: Source) -> str:
    return source.label if source.adapter is None else f"{source.label}+{source.adapter.label}"


def _source(place: str) -> Source:
    """Return the model and the adapter that a text names, at their commits."""
    if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises for long names
        return Source(ModelReference(os.path.abspath(place)), "")  # noqa: PTH100 - links stay as they are
    reference = ModelReference.parse(place)
    model = _at_commit(replace(reference, adapter=None))
    if reference.adapter is None:
        return model
    adapter = replace(_at_commit(reference.adapter), is_adapter=True)
    return replace(model, adapter=replace(adapter, commit=_adapter_commit(adapter)))


def _at_commit(reference: ModelReference) -> Source:
    if not reference.is_local:
        return Source(reference, fetch.resolve_commit("model", reference.path, reference.revision))
    folder = Path(reference.path).expanduser()
    if not folder.is_dir():
        raise UsageError(f"folder not found: {folder}", hint="name a folder, or a repo: owner/name@revision")
    return Source(replace(reference, path=str(folder.absolute())), "")


def _adapter_commit(adapter: Source) -> str:
    """Return the commit of an adapter; of one in a folder the digest of its files, which are small."""
    return folder_digest(Path(adapter.reference.path)) if adapter.is_local else adapter.commit


def _base_of(adapter: Source, place: str) -> Source:
    named = base_model_of(adapter_config(adapter))
    if named is None:
        raise CheckpointError(
            f"{place} is an adapter whose config does not name its base model",
            hint=f"name both: BASE+{place}",
            repo=None if adapter.is_local else adapter.reference.path,
            commit=None if adapter.is_local else adapter.commit,
        )
    return _source(named)
