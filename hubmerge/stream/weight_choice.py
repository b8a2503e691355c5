"""Choice among the weight files of a source: which are read, which are not and why, and whether they agree."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from hubmerge.checkpoints import AdaptedCheckpoint, Checkpoint
from hubmerge.checkpoints.formats.header import parse_header
from hubmerge.checkpoints.formats.layout import ADAPTER_FILES, LORA_FILES
from hubmerge.checkpoints.formats.passed_over import ADAPTER, PassedOver, described, passed_over
from hubmerge.checkpoints.formats.weight_file import open_weight_file
from hubmerge.checkpoints.matching.names import Shapes, parameter_shapes
from hubmerge.checkpoints.tensors import TensorInfo, describe_shape
from hubmerge.errors import HubmergeError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile
from hubmerge.stream.open_source import fetched_sources
from hubmerge.stream.sources import Source, files_below
from hubmerge.support.text import listed

WEIGHT_FILES = "weight files: "
"""Start of the sentence of a report on a choice among weight files."""

_ADAPTER_NOTE = (
    "the adapter beside the model is not applied, as transformers does if peft is installed; "
    "to merge the model with it, name it twice: owner/model+owner/model"
)

MOST_FILES_COMPARED = 8
"""Number of files that are not read up to which their headers are fetched, to compare them with those that are."""


@dataclass(frozen=True)
class WeightChoice:
    """Weight files of a source.

    Attributes:
        read: the files that are read.
        passed_over: the files that are not.
        notes: differences between the two, one sentence each, without the name of the model.
        adapter: files of the adapter that is applied to the model, None if there is none. Without files of its own, the
            choice is that of an adapter for the base model.
    """

    read: tuple[str, ...]
    passed_over: tuple[PassedOver, ...] = ()
    notes: tuple[str, ...] = ()
    adapter: WeightChoice | None = None

    @property
    def has_others(self) -> bool:
        """True if some files are not read."""
        return bool(self.passed_over) or (self.adapter is not None and self.adapter.has_others)

    @property
    def text(self) -> str:
        """The files in words: those that are read, and those that are not, with the reasons."""
        own = [self._own_text] if self.read else []
        return ". Adapter: ".join([*own, *([self.adapter.text] if self.adapter is not None else [])])

    @property
    def _own_text(self) -> str:
        reasons: dict[str, list[str]] = {}
        for one in self.passed_over:
            reasons.setdefault(one.reason, []).append(one.name)
        rest = "; ".join(f"{listed(names, most=3)} ({reason})" for reason, names in reasons.items())
        return f"{described(self.read)}; not read: {rest}" if rest else described(self.read)

    def to_dict(self) -> dict[str, Any]:
        """Return the names of the files as plain JSON values."""
        unread = [{"name": one.name, "reason": one.reason} for one in self.passed_over]
        found: dict[str, Any] = {"read": list(self.read), "not_read": unread}
        return found if self.adapter is None else found | {"adapter": self.adapter.to_dict()}


def weight_choice(source: Source, checkpoint: Checkpoint) -> WeightChoice:
    """Return which weight files of a model and of its adapter are read.

    Args:
        source: Source returned by `resolve_adapter`.
        checkpoint: The model, opened from its headers.
    """
    model, *adapters = fetched_sources(source)
    if not isinstance(checkpoint, AdaptedCheckpoint) or not adapters:
        return _choice(model, checkpoint)
    own, adapter = checkpoint.model, checkpoint.adapter_files
    together = (model.reference.path, model.subfolder) == (adapters[0].reference.path, adapters[0].subfolder)
    is_base = source.base is not None and model.reference == source.base.reference
    whole = WeightChoice(()) if is_base else _choice(model, own, (*ADAPTER_FILES, *LORA_FILES) if together else ())
    applied = _choice(adapters[0], adapter, own.files if together else ())
    return replace(whole, notes=(*whole.notes, *applied.notes), adapter=applied)


def _choice(model: Source, checkpoint: Checkpoint, beside: Collection[str] = ()) -> WeightChoice:
    """Return which files of one source are read: a model or an adapter.

    Args:
        model: the source.
        checkpoint: its tensors.
        beside: names of other files in its folder that are not counted.
    """
    files = {name: file for name, file in _files(model).items() if name not in beside}
    read = tuple(sorted(files.keys() & set(checkpoint.files)))
    if not read:
        return WeightChoice(())
    found = passed_over(files, read, None if model.is_adapter else checkpoint.names)
    shapes = parameter_shapes(checkpoint.tensors)
    notes = [note for one in found if one.is_copy for note in _differences(model, one, files, shapes, read)]
    if any(one.reason == ADAPTER for one in found):
        notes.append(_ADAPTER_NOTE)
    return WeightChoice(read, found, tuple(notes))


def _files(model: Source) -> dict[str, RemoteFile]:
    """Return all files of a model by name."""
    if model.is_local:
        folder = Path(model.reference.path)
        return {name: RemoteFile(name, (folder / name).stat().st_size) for name in files_below(folder)}
    listing = fetch.list_files(model.reference.path, model.commit, model.subfolder)
    return {model.name_of(file): file for file in listing}


def _differences(
    model: Source, other: PassedOver, files: Mapping[str, RemoteFile], shapes: Shapes, read: tuple[str, ...]
) -> Iterator[str]:
    """Yield a note if files that are not read have other tensors than those that are, as far as headers show it."""
    try:
        tensors = _tensors(model, other, files)
    except HubmergeError:  # files that are not read may be damaged
        return
    if tensors is None:
        return
    own = parameter_shapes(tensors)
    reshaped = [name for name in own if name in shapes and shapes[name] != own[name]]
    missing = sorted(own.keys() - shapes.keys())
    lacking = sorted(name for name in shapes.keys() - tensors.keys())
    if reshaped:
        name = reshaped[0]
        what = f"{name!r} is {describe_shape(own[name])} there, not {describe_shape(shapes[name])}"
        yield f"{other.name} has another model than {described(read)}, which is read: {what}"
    elif missing or lacking:
        parts = [f"it has {listed(missing, most=2)}"] if missing else []
        parts += [f"it lacks {listed(lacking, most=2)}"] if lacking else []
        yield f"{other.name} has other tensors than {described(read)}, which is read: {', '.join(parts)}"


def _tensors(model: Source, other: PassedOver, files: Mapping[str, RemoteFile]) -> dict[str, TensorInfo] | None:
    """Return the tensors of files from their headers; None if they have none that could be fetched alone."""
    found: dict[str, TensorInfo] = {}
    if len(other.files) > MOST_FILES_COMPARED:
        return None
    for name in other.files:
        origin = model.origin.in_file(name)
        path = Path(model.reference.path) / name
        if model.is_local and not name.endswith(".safetensors") and not is_zipfile(path):
            return None  # written before torch 1.6, and read whole
        if model.is_local:
            source, tensors, _ = open_weight_file(path, origin)
            source.close()
            found.update(tensors)
        elif name.endswith(".safetensors"):
            content = fetch.read_header(model.reference.path, model.commit, files[name])
            found.update(_parsed(content, files[name].size, model, name))
        else:
            return None
    return found


def _parsed(content: bytes, size: int, model: Source, name: str) -> Mapping[str, TensorInfo]:
    header = parse_header(lambda offset, length: content[offset : offset + length], size, model.origin.in_file(name))
    return header.tensors


def choice_notes(choices: Iterable[tuple[str, WeightChoice]]) -> list[str]:
    """Return the notes of several models, equal ones once, with the names of the models in front."""
    labels: dict[str, list[str]] = {}
    for label, choice in choices:
        for note in choice.notes:
            labels.setdefault(note, []).append(label)
    return [f"{listed(names, most=3)}: {note}" for note, names in labels.items()]
