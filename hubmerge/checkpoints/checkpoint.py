"""A checkpoint: named tensors that are read one by one, each only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import torch

from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError

CHUNK_BYTES = 8 << 20


class TensorSource(Protocol):
    """One file that holds tensors: safetensors, a pickle, or a header whose values were never fetched."""

    def read(self, info: TensorInfo) -> torch.Tensor:
        """The tensor in its stored dtype, on the CPU, in memory of its own."""
        ...

    def close(self) -> None:
        """Let go of the file. Reading afterwards opens it again."""
        ...


@runtime_checkable
class PiecewiseSource(Protocol):
    """A file that need not be read tensor by tensor."""

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """What `Checkpoint.read_pieces` gives."""
        ...


@runtime_checkable
class RemoteSource(Protocol):
    """A file that lies elsewhere, of which only what is asked for is brought here."""

    def prepare(self, infos: Iterable[TensorInfo]) -> None:
        """Fetch the values of these tensors, together and before they are read."""
        ...


class HeaderOnly:
    """A source of which only the header is known: everything can be planned, nothing can be read."""

    def __init__(self, label: str) -> None:
        self._label = label

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Raise CheckpointError: the values are not here."""
        raise CheckpointError(
            f"{self._label}: tensor {info.name!r} cannot be read, only the header of {info.file} was fetched",
            hint="fetch the checkpoint's files before merging it",
        )

    def close(self) -> None:
        """Nothing to let go of."""


class Checkpoint:
    """Named tensors of one model. Nothing is read before `read` is called; several threads may read.

    `label` names the checkpoint in messages (a path, or `repo@commit`), `config` is its config.json.
    """

    def __init__(
        self,
        label: str,
        tensors: Mapping[str, TensorInfo],
        config: Mapping[str, Any],
        sources: Mapping[str, TensorSource],
    ) -> None:
        self.label = label
        self.tensors = dict(tensors)
        self.config = dict(config)
        self._sources = dict(sources)

    def read(self, name: str) -> torch.Tensor:
        """The tensor in its stored dtype and shape, on the CPU, in memory of its own.

        Raises CheckpointError if there is no such tensor or its bytes cannot be read.
        """
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.label}: no tensor {name!r} among its {len(self.tensors)} tensors",
                hint="names are those of the checkpoint's own files",
            )
        return self._sources[info.file].read(info)

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """The tensor's values in their stored dtype and in C order, flat, in pieces of `elements` and a shorter one.

        A piece may lie where the one before it lay. Raises CheckpointError as `read` does.
        """
        info = self.tensors.get(name)
        source = None if info is None else self._sources.get(info.file)
        if info is not None and isinstance(source, PiecewiseSource):
            return source.read_pieces(info, elements)
        return iter(self.read(name).reshape(-1).split(elements))

    def can_read_pieces(self, name: str) -> bool:
        """Whether `read_pieces` never has more than a piece of the tensor in memory."""
        info = self.tensors.get(name)
        return info is not None and isinstance(self._sources.get(info.file), PiecewiseSource)

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch what has to be fetched to read these tensors, in few requests; nothing where the files are here.

        Raises HubmergeError if something cannot be fetched.
        """
        in_files: dict[str, list[TensorInfo]] = {}
        for name in names:
            info = self.tensors[name]
            in_files.setdefault(info.file, []).append(info)
        for file, infos in in_files.items():
            source = self._sources.get(file)
            if isinstance(source, RemoteSource):
                source.prepare(infos)

    def raw_chunks(self, name: str) -> Iterator[memoryview]:
        """The tensor's values as stored, in pieces of at most 8 MiB, for a byte-identical copy."""
        values = byte_view(self.read(name))
        for begin in range(0, len(values), CHUNK_BYTES):
            yield values[begin : begin + CHUNK_BYTES]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold the tensors."""
        return tuple(self._sources)

    def close(self) -> None:
        """Let go of all open files; a later `read` opens what it needs again."""
        for source in self._sources.values():
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def byte_view(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor in C order, without a copy where it is contiguous and on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
