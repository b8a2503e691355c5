"""What is carried from one step of a merge to the next: the accumulated delta and a few numbers.

    FOLDER/
      accumulated.safetensors   the accumulated delta of every merged tensor, float64
      parts.safetensors         what else there is to carry: sketches of the task vectors, parts that a method keeps
      state.json                step, chain digest, norms, scale, a checksum of every tensor; written last

The folder appears by one rename: it is complete or absent. Nothing is read from it but what is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from hubmerge.checkpoints import SafetensorsReader, SafetensorsWriter, TensorInfo, TensorSpec
from hubmerge.errors import CheckpointError, MachineError
from hubmerge.methods import Norms
from hubmerge.support.names import MANIFEST_FILE
from merge_recipes.canonical import canonical_document

FORMAT_VERSION = 1
ACCUMULATED_FILE = "accumulated.safetensors"
PARTS_FILE = "parts.safetensors"


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of a state: length of its accumulated delta and of the last task vector, sha256 of its values."""

    accumulated_norm: float
    task_vector_norm: float
    sha256: str


@dataclass(frozen=True)
class StateManifest:
    """What state.json holds.

    `chain` is a digest of everything that led here, made by the caller. `task_vector_norms` are those of all
    steps so far, over all merged tensors together; merged model = base model + accumulated delta / `scale`.
    `parts` are the sha256 of further tensors: those that a method keeps, and the sketches of the task vectors.
    """

    method: str
    step: int
    chain: str
    task_vector_norms: tuple[float, ...]
    accumulated_norm: float
    scale: float
    tensors: Mapping[str, TensorRecord]
    parts: Mapping[str, str] = field(default_factory=dict)
    version: int = FORMAT_VERSION

    @property
    def norms(self) -> Norms:
        """The lengths that a method derives its scale from."""
        return Norms(self.accumulated_norm, self.task_vector_norms)


class MergeState:
    """The state after a step, in a folder. Tensors are read one at a time; several threads may read."""

    def __init__(
        self, folder: Path, manifest: StateManifest, stored: SafetensorsReader, parts: SafetensorsReader | None = None
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._stored = stored
        self._parts = parts

    @property
    def step(self) -> int:
        """The step it was saved after, counted from 1."""
        return self.manifest.step

    @property
    def scale(self) -> float:
        """What the accumulated delta is divided by to get the merged delta."""
        return self.manifest.scale

    def read(self, name: str) -> torch.Tensor:
        """The accumulated delta of one tensor, float64, in memory of its own.

        Raises CheckpointError if the state has no such tensor or it cannot be read.
        """
        return self._stored.read(self._info(name))

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Its values in C order, flat, in pieces of `elements` and a shorter one, to be changed at will.

        A piece may lie where the one before it lay. Raises CheckpointError as `read` does.
        """
        return self._stored.read_pieces(self._info(name), elements)

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the manifest, which holds a checksum of every tensor."""
        return f"sha256:{hashlib.sha256((self.folder / MANIFEST_FILE).read_bytes()).hexdigest()}"

    def read_part(self, key: str) -> torch.Tensor | None:
        """A further tensor by the key it was written under, in memory of its own; None if there is none."""
        info = None if self._parts is None else self._parts.header.tensors.get(key)
        return None if self._parts is None or info is None else self._parts.read(info)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the merged tensors."""
        return {name: info.shape for name, info in self._stored.header.tensors.items()}

    def first_difference(self, shapes: Mapping[str, Sequence[int]]) -> str | None:
        """The first name that the state and `shapes` do not have alike, None if there is none."""
        stored = self.shapes()
        names = sorted({*stored, *shapes})
        return next((name for name in names if stored.get(name) != tuple(shapes.get(name, (-1,)))), None)

    def verify(self) -> None:
        """Compare every tensor with its checksum. Raises CheckpointError naming the first that differs."""
        for name, record in self.manifest.tensors.items():
            self._check(ACCUMULATED_FILE, name, self.read(name), record.sha256)
        for key, sha256 in self.manifest.parts.items():
            self._check(PARTS_FILE, key, self.read_part(key), sha256)

    def _info(self, name: str) -> TensorInfo:
        info = self._stored.header.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.folder}: the state of step {self.step} has no tensor {name!r}",
                hint="it belongs to another merge: remove the folder and run again",
            )
        return info

    def _check(self, file: str, name: str, tensor: torch.Tensor | None, sha256: str) -> None:
        values = torch.empty(0) if tensor is None else tensor
        if hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).hexdigest() != sha256:
            raise CheckpointError(
                f"{self.folder / file}: tensor {name!r} is not what was written",
                hint="the file is damaged: remove the folder and run again",
            )

    def close(self) -> None:
        """Let go of the file; a later `read` opens it again."""
        self._stored.close()
        if self._parts is not None:
            self._parts.close()


@dataclass(frozen=True)
class Written:
    """What one process wrote into a state that several write: names and checksums of its tensors and parts."""

    tensors: Mapping[str, str]
    parts: Mapping[str, str]


def partial_folder(folder: Path) -> Path:
    """Where a state lies until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


class StateWriter:
    """Write a state tensor by tensor; nothing appears under `folder` before `finish`.

        with StateWriter(folder, specs) as writer:
            writer.write("weight", accumulated)
            state = writer.finish(...)

    Leaving the block without `finish` removes what was written; so does the next writer of the same folder if
    the process was killed. Several threads may call `write`. Several processes may write one state, as with
    `SafetensorsWriter`: those that join it end with `export_written` instead of `finish`.

    Raises MachineError if the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        parts: Sequence[TensorSpec] = (),
        *,
        attach: bool = False,
    ) -> None:
        self.folder = folder
        self._joins = attach
        self._partial = partial_folder(folder)
        if not attach:
            shutil.rmtree(self._partial, ignore_errors=True)
        specs = [TensorSpec(name, torch.float64, shape) for name, shape in shapes.items()]
        self._tensors = SafetensorsWriter(self._partial / ACCUMULATED_FILE, specs, attach=attach)
        self._parts = SafetensorsWriter(self._partial / PARTS_FILE, parts, attach=attach) if parts else None

    def write(self, name: str, accumulated: torch.Tensor) -> None:
        """Write the accumulated delta of one tensor, float64."""
        self._tensors.write(name, accumulated)

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """The same from pieces of its values in C order, each of which is done with before the next is asked for."""
        self._tensors.write_pieces(name, pieces)

    def write_part(self, key: str, tensor: torch.Tensor) -> None:
        """Write one of the further tensors, as announced."""
        if self._parts is None:
            raise ValueError(f"{key}: no parts were announced")
        self._parts.write(key, tensor)

    def export_written(self) -> Written:
        """Make durable what this process wrote into a state it joined, for `import_written` in the first one."""
        return Written(self._tensors.export_written(), self._parts.export_written() if self._parts is not None else {})

    def import_written(self, written: Written) -> None:
        """Count as written what another process handed over."""
        self._tensors.import_written(written.tensors)
        if self._parts is not None:
            self._parts.import_written(written.parts)

    def finish(
        self,
        *,
        method: str,
        step: int,
        chain: str,
        norms: Norms,
        scale: float,
        tensor_norms: Mapping[str, tuple[float, float]],
    ) -> MergeState:
        """Complete the state and give the folder its name; a folder that has it already is replaced.

        `tensor_norms` are the lengths of each tensor's accumulated delta and last task vector.
        """
        digests = self._tensors.commit().digests
        records = {name: TensorRecord(*tensor_norms[name], digests[name]) for name in digests}
        parts = self._parts.commit().digests if self._parts is not None else {}
        manifest = StateManifest(method, step, chain, norms.task_vectors, norms.accumulated, scale, records, parts)
        text = canonical_document(asdict(manifest), indent=1, ascii_only=True)
        try:
            _write_durably(self._partial / MANIFEST_FILE, text)
            if self.folder.exists():
                outdated = self.folder.with_name(f".{self.folder.name}.outdated")
                shutil.rmtree(outdated, ignore_errors=True)
                self.folder.rename(outdated)
                self._partial.rename(self.folder)
                shutil.rmtree(outdated)
            else:
                self._partial.rename(self.folder)
            _sync(self.folder.parent)
        except OSError as error:
            raise MachineError(
                f"{self.folder}: the state cannot be saved: {error.strerror or error}",
                hint="check the folder, its permissions and the room on its disk",
            ) from error
        return load_state(self.folder)

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tensors.abort()
        if self._parts is not None:
            self._parts.abort()
        if not self._joins:
            shutil.rmtree(self._partial, ignore_errors=True)


def load_state(folder: Path) -> MergeState:
    """Open the state in `folder`, reading its manifest and the header of its tensors only.

    Raises CheckpointError if there is none, or it is damaged or of a later format.
    """
    manifest = _manifest(folder / MANIFEST_FILE)
    stored = SafetensorsReader(folder / ACCUMULATED_FILE)
    infos = stored.header.tensors
    wrong = [name for name, info in infos.items() if info.dtype != torch.float64]
    if set(infos) != set(manifest.tensors) or wrong:
        raise CheckpointError(
            f"{folder}: {MANIFEST_FILE} and {ACCUMULATED_FILE} do not belong together",
            hint="remove the folder and run again",
        )
    parts = SafetensorsReader(folder / PARTS_FILE) if manifest.parts else None
    if parts is not None and set(parts.header.tensors) != set(manifest.parts):
        raise CheckpointError(
            f"{folder}: {MANIFEST_FILE} and {PARTS_FILE} do not belong together",
            hint="remove the folder and run again",
        )
    return MergeState(folder, manifest, stored, parts)


def find_state(folder: Path) -> MergeState | None:
    """The state in `folder`, None if there is no such folder. Raises CheckpointError if it is damaged."""
    return load_state(folder) if folder.exists() else None


def _manifest(path: Path) -> StateManifest:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != FORMAT_VERSION:
            raise CheckpointError(
                f"{path}: a state of format {data['version']}, this version reads format {FORMAT_VERSION}",
                hint="use the version of hubmerge that wrote it, or remove the folder and run again",
            )
        records = {str(name): TensorRecord(**record) for name, record in data.pop("tensors").items()}
        norms = tuple(float(norm) for norm in data.pop("task_vector_norms"))
        manifest = StateManifest(tensors=records, task_vector_norms=norms, **data)
    except OSError as error:
        raise CheckpointError(
            f"{path}: no state there: {error.strerror or error}", hint="remove the folder and run again"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not the manifest of a state: {error}", hint="remove the folder and run again"
        ) from error
    if len(manifest.task_vector_norms) != manifest.step or not manifest.scale > 0.0:
        raise CheckpointError(
            f"{path}: step {manifest.step} with {len(manifest.task_vector_norms)} norms and scale {manifest.scale}",
            hint="the file was changed by hand: remove the folder and run again",
        )
    return manifest


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
