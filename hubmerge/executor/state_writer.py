"""Writer of a state."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import torch

from hubmerge.checkpoints import SafetensorsWriter, TensorSpec
from hubmerge.errors import MachineError
from hubmerge.executor.state import (
    FORMAT_VERSION,
    STATISTICS_VERSION,
    MergeState,
    State,
    StateManifest,
    TensorRecord,
    load_state,
)
from hubmerge.linalg import PIECE
from hubmerge.methods import Norms
from hubmerge.support.files import replace_folder, write_text_atomic
from hubmerge.support.names import ACCUMULATED_FILE, MANIFEST_FILE, PARTS_FILE
from merge_recipes.canonical import canonical_document


@dataclass(frozen=True)
class StateSummary:
    """Numbers of a state that are known when all its tensors are written.

    Attributes:
        method: name of the merge method.
        step: the step, from 1.
        chain: digest of all inputs up to this step.
        norms: over all merged tensors together.
        scale: divisor of the accumulated delta.
        averaged: statistics, of which the mean itself is written.
        tensor_norms: norms of each tensor's accumulated delta and last task vector.
        dtype: the dtype of the state.
    """

    method: str
    step: int
    chain: str
    norms: Norms
    scale: float
    tensor_norms: Mapping[str, tuple[float, float]]
    averaged: tuple[str, ...] = ()
    dtype: torch.dtype = torch.float64

    def manifest(self, digests: Mapping[str, str], parts: Mapping[str, str]) -> StateManifest:
        """Return the manifest with the checksums of tensors and parts."""
        records = {name: TensorRecord(*self.tensor_norms[name], digest) for name, digest in digests.items()}
        norms = self.norms
        manifest = StateManifest(
            self.method, self.step, self.chain, norms.task_vectors, norms.accumulated, self.scale, records, dict(parts)
        )
        if self.averaged:
            manifest = replace(manifest, averaged=self.averaged, version=STATISTICS_VERSION)
        return replace(manifest, dtype="float32", version=FORMAT_VERSION) if self.dtype == torch.float32 else manifest


class AnyStateWriter(ABC):
    """Writer of a state, to a folder or in memory. Several threads may write."""

    in_memory: bool
    """True if written tensors stay in memory, on the device they are on."""

    @abstractmethod
    def write(self, name: str, accumulated: torch.Tensor) -> None:
        """Write the accumulated delta of one tensor, float64."""

    @abstractmethod
    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write it from pieces of its values in C order."""

    @abstractmethod
    def write_part(self, key: str, tensor: torch.Tensor) -> None:
        """Write one of the further tensors that were announced."""

    @abstractmethod
    def finish(self, summary: StateSummary) -> State:
        """Complete the state and return it."""


@dataclass(frozen=True)
class Written:
    """Tensors and parts that one process wrote into a shared state, with their checksums."""

    tensors: Mapping[str, str]
    parts: Mapping[str, str]


def partial_folder(folder: Path) -> Path:
    """Return the folder of a state that is not complete yet."""
    return folder.with_name(f".{folder.name}.partial")


class StateWriter(AnyStateWriter):
    """Writer of a state, tensor by tensor; nothing appears under `folder` before `finish`.

    Leaving the block without `finish` removes what was written. If the process is killed, the next writer of the same
    folder does. Several threads may call `write`. Several processes may write one state, as with `SafetensorsWriter`:
    those that attach to it end with `export_written` instead of `finish`.

    Example:
        with StateWriter(folder, shapes) as writer:
            writer.write("weight", accumulated)
            state = writer.finish(summary)

    Raises:
        MachineError: the folder cannot be written.
    """

    in_memory = False

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        parts: Sequence[TensorSpec] = (),
        *,
        attach: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.folder = folder
        self._dtype = dtype
        self._part_dtypes = {spec.name: spec.dtype for spec in parts}
        self._attached = attach
        self._partial = partial_folder(folder)
        if not attach:
            shutil.rmtree(self._partial, ignore_errors=True)
        specs = [TensorSpec(name, dtype, shape) for name, shape in shapes.items()]
        self._tensors = SafetensorsWriter(self._partial / ACCUMULATED_FILE, specs, attach=attach)
        self._parts = SafetensorsWriter(self._partial / PARTS_FILE, parts, attach=attach) if parts else None

    def write(self, name: str, accumulated: torch.Tensor) -> None:
        """Write the accumulated delta of one tensor, float64, in the dtype of the state."""
        if accumulated.device.type != "cpu" or accumulated.dtype == self._dtype:
            self._tensors.write(name, accumulated.to(self._dtype))
            return
        self.write_pieces(name, accumulated.contiguous().view(-1).split(PIECE))

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write it from pieces of its values in C order; each piece is written before the next is asked for."""
        self._tensors.write_pieces(name, (piece.to(self._dtype) for piece in pieces))

    def write_part(self, key: str, tensor: torch.Tensor) -> None:
        """Write one of the further tensors that were announced."""
        if self._parts is None:
            raise ValueError(f"{key}: no parts were announced")
        self._parts.write(key, tensor.to(self._part_dtypes[key]))

    def export_written(self) -> Written:
        """Flush what this process wrote to the disk, and return it for `import_written` in the first process."""
        return Written(self._tensors.export_written(), self._parts.export_written() if self._parts is not None else {})

    def import_written(self, written: Written) -> None:
        """Register what another process wrote."""
        self._tensors.import_written(written.tensors)
        if self._parts is not None:
            self._parts.import_written(written.parts)

    def finish(self, summary: StateSummary) -> MergeState:
        """Complete the state and give the folder its name; a folder of that name is replaced."""
        digests = self._tensors.commit().digests
        parts = self._parts.commit().digests if self._parts is not None else {}
        manifest = summary.manifest({name: digests[name] for name in digests}, parts)
        text = canonical_document(manifest.to_dict(), indent=1, ascii_only=True)
        try:
            write_text_atomic(self._partial / MANIFEST_FILE, text)
            replace_folder(self._partial, self.folder)
        except OSError as error:
            raise MachineError(
                f"{self.folder}: the state cannot be saved: {error.strerror or error}",
                hint="check the folder, its permissions and the free space on its disk",
                file=str(self.folder),
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
        if not self._attached:
            shutil.rmtree(self._partial, ignore_errors=True)
