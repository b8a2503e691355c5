"""State of a merge between two steps: the accumulated delta and a few numbers.

    FOLDER/
      accumulated.safetensors   the accumulated delta of every merged tensor, float64 or float32
      parts.safetensors         sketches of the task vectors, and the state parts of a method
      state.json                step, chain digest, norms, scale, a checksum of every tensor; written last

The folder appears by one rename, so it is either complete or absent. Only tensors that are asked for are read.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, TypeAdapter

from hubmerge.checkpoints import SafetensorsReader, TensorInfo
from hubmerge.errors import CheckpointError
from hubmerge.linalg import PIECE
from hubmerge.methods import Norms
from hubmerge.support.names import ACCUMULATED_FILE, MANIFEST_FILE, PARTS_FILE
from hubmerge.support.text import counted

FORMAT_VERSION = 3
"""Version of states in float32. Those in float64 have version 2 with statistics, 1 without any as in hubmerge 0.1.0."""

STATISTICS_VERSION = 2
READABLE_VERSIONS = (1, 2, 3)
_REMOVE = "remove the folder and run again"


@dataclass(frozen=True)
class TensorRecord:
    """One tensor of a state: norms of its accumulated delta and of its last task vector, SHA-256 of its values."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    accumulated_norm: float
    task_vector_norm: float
    sha256: str


@dataclass(frozen=True)
class StateManifest:
    """Content of state.json.

    Attributes:
        method: name of the merge method.
        step: the step after which the state was saved, from 1.
        chain: digest of all inputs up to this step, made by the caller.
        task_vector_norms: of every step so far, over all merged tensors together.
        accumulated_norm: over all merged tensors together.
        scale: merged model = base model + accumulated delta / scale.
        tensors: one record for each merged tensor.
        parts: SHA-256 of further tensors: state parts of the method, and sketches of the task vectors.
        version: version of the format.
        averaged: statistics, of which the state has the mean itself, in place of an accumulated delta.
        dtype: of the accumulated delta, and of all parts that are no single numbers.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    method: str
    step: int
    chain: str
    task_vector_norms: tuple[float, ...]
    accumulated_norm: float
    scale: float
    tensors: Mapping[str, TensorRecord]
    parts: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    averaged: tuple[str, ...] = ()
    dtype: Literal["float64", "float32"] = "float64"

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values; without statistics, in the form of version 1."""
        content = asdict(self)
        if not self.averaged:
            del content["averaged"]
        if self.dtype == "float64":
            del content["dtype"]
        return content

    @property
    def norms(self) -> Norms:
        """The norms from which a method computes its scale."""
        return Norms(self.accumulated_norm, self.task_vector_norms)


class State(ABC):
    """State after a step, in a folder or in memory. Several threads may read."""

    def __init__(self, manifest: StateManifest) -> None:
        self.manifest = manifest

    @property
    def step(self) -> int:
        """The step after which it was saved, from 1."""
        return self.manifest.step

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that its values are rounded to."""
        return torch.float32 if self.manifest.dtype == "float32" else torch.float64

    @property
    def scale(self) -> float:
        """The divisor of the accumulated delta."""
        return self.manifest.scale

    @property
    @abstractmethod
    def label(self) -> str:
        """The name in messages."""

    @abstractmethod
    def read(self, name: str) -> torch.Tensor:
        """Return the accumulated delta of one tensor, float64, in memory of its own."""

    @abstractmethod
    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield its values in C order, flat, in pieces of `elements`; the last one may be shorter.

        The caller may change a piece. The next piece may reuse its memory.
        """

    @abstractmethod
    def read_part(self, key: str) -> torch.Tensor | None:
        """Return a further tensor by its key, in memory of its own; None if there is none."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the merged tensors."""

    def first_difference(self, shapes: Mapping[str, Sequence[int]]) -> str | None:
        """Return the first name that is missing on one side or has another shape in `shapes`; None if all agree."""
        stored = self.shapes()
        names = sorted({*stored, *shapes})
        return next((name for name in names if stored.get(name) != tuple(shapes.get(name, (-1,)))), None)


class MergeState(State):
    """State after a step, in a folder. Tensors are read one at a time."""

    def __init__(
        self, folder: Path, manifest: StateManifest, stored: SafetensorsReader, parts: SafetensorsReader | None = None
    ) -> None:
        super().__init__(manifest)
        self.folder = folder
        self._stored = stored
        self._parts = parts

    @property
    def label(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    @property
    def digest(self) -> str:
        """`sha256:` and the digest of the manifest, which has a checksum of every tensor."""
        return f"sha256:{hashlib.sha256((self.folder / MANIFEST_FILE).read_bytes()).hexdigest()}"

    def read(self, name: str) -> torch.Tensor:
        """Return the accumulated delta of one tensor, float64, in memory of its own.

        Raises:
            CheckpointError: the tensor is not in the state, or cannot be read.
        """
        info = self._info(name)
        if info.dtype == torch.float64:
            return self._stored.read(info)
        values = torch.empty(info.shape, dtype=torch.float64)
        for target, piece in zip(values.view(-1).split(PIECE), self._stored.read_pieces(info, PIECE), strict=True):
            target.copy_(piece)
        return values

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield its values in pieces, see `State.read_pieces`; the errors are those of `read`."""
        return (piece.to(torch.float64) for piece in self._stored.read_pieces(self._info(name), elements))

    def read_part(self, key: str) -> torch.Tensor | None:
        """Return a further tensor by its key, in memory of its own; None if there is none."""
        info = None if self._parts is None else self._parts.header.tensors.get(key)
        return None if self._parts is None or info is None else self._parts.read(info)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the merged tensors."""
        return {name: info.shape for name, info in self._stored.header.tensors.items()}

    def verify(self) -> None:
        """Compare every tensor with its checksum.

        Raises:
            CheckpointError: a tensor differs; the message names the first one.
        """
        for name, record in self.manifest.tensors.items():
            self._check(ACCUMULATED_FILE, name, self._stored.read(self._info(name)), record.sha256)
        for key, sha256 in self.manifest.parts.items():
            self._check(PARTS_FILE, key, self.read_part(key), sha256)

    def close(self) -> None:
        """Close the files; a later `read` opens them again."""
        self._stored.close()
        if self._parts is not None:
            self._parts.close()

    def _info(self, name: str) -> TensorInfo:
        info = self._stored.header.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.folder}: the state of step {self.step} has no tensor {name!r}",
                hint="it belongs to another merge: remove the folder and run again",
                file=str(self.folder / ACCUMULATED_FILE),
                tensor=name,
            )
        return info

    def _check(self, file: str, name: str, tensor: torch.Tensor | None, sha256: str) -> None:
        values = torch.empty(0) if tensor is None else tensor
        if hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().data).hexdigest() != sha256:
            raise CheckpointError(
                f"{self.folder / file}: tensor {name!r} does not match its checksum in {MANIFEST_FILE}",
                hint=f"the file is damaged: {_REMOVE}",
                file=str(self.folder / file),
                tensor=name,
            )


def load_state(folder: Path) -> MergeState:
    """Open the state in `folder`; only its manifest and the headers of its tensors are read.

    Raises:
        CheckpointError: there is none, or it is damaged or of a later format.
    """
    manifest = _manifest(folder / MANIFEST_FILE)
    stored = SafetensorsReader(folder / ACCUMULATED_FILE)
    infos = stored.header.tensors
    dtype = torch.float32 if manifest.dtype == "float32" else torch.float64
    if set(infos) != set(manifest.tensors) or any(info.dtype != dtype for info in infos.values()):
        raise _mismatch(folder, ACCUMULATED_FILE)
    parts = SafetensorsReader(folder / PARTS_FILE) if manifest.parts else None
    if parts is not None and set(parts.header.tensors) != set(manifest.parts):
        raise _mismatch(folder, PARTS_FILE)
    return MergeState(folder, manifest, stored, parts)


def find_state(folder: Path) -> MergeState | None:
    """Return the state in `folder`, or None if the folder does not exist; the errors are those of `load_state`."""
    return load_state(folder) if folder.exists() else None


def _mismatch(folder: Path, file: str) -> CheckpointError:
    message = f"{folder}: {MANIFEST_FILE} and {file} do not list the same tensors"
    return CheckpointError(message, hint=_REMOVE, file=str(folder / file))


_VERSION: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_MANIFEST = TypeAdapter(StateManifest)


def _manifest(path: Path) -> StateManifest:
    try:
        content = path.read_bytes()
        version = _VERSION.validate_json(content)["version"]
        if version not in READABLE_VERSIONS:
            raise CheckpointError(
                f"{path}: a state of format {version}; this version of hubmerge reads formats up to {FORMAT_VERSION}",
                hint=f"use the version of hubmerge that wrote it, or {_REMOVE}",
                file=str(path),
            )
        manifest = _MANIFEST.validate_json(content, strict=True)
    except OSError as error:
        message = f"{path}: there is no state: {error.strerror or error}"
        raise CheckpointError(message, hint=_REMOVE, file=str(path)) from error
    except (ValueError, KeyError) as error:
        message = f"{path}: not the manifest of a state: {error}"
        raise CheckpointError(message, hint=_REMOVE, file=str(path)) from error
    if len(manifest.task_vector_norms) != manifest.step or not manifest.scale > 0.0:
        count = counted(len(manifest.task_vector_norms), "norm")
        raise CheckpointError(
            f"{path}: inconsistent: step {manifest.step} with {count} and scale {manifest.scale}",
            hint=f"the file was edited: {_REMOVE}",
            file=str(path),
        )
    return manifest
