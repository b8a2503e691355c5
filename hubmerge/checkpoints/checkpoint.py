"""Checkpoints: named tensors that are read one by one, each when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import torch

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.checkpoints.weight_names import TRANSFORMERS, WeightNames, names_for

CHUNK_BYTES = 8 << 20
SAMPLE_BYTES = 64 << 10


class TensorSource(Protocol):
    """One file of tensors: safetensors, a pickle, or a header without values."""

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Return the tensor in its stored dtype, on the CPU, in memory of its own."""
        ...

    def close(self) -> None:
        """Close the file; a later `read` opens it again."""
        ...


@runtime_checkable
class PiecewiseSource(Protocol):
    """A file whose tensors can be read in pieces."""

    def read_pieces(self, info: TensorInfo, elements: int) -> Iterator[torch.Tensor]:
        """Yield the tensor's values in pieces, as `Checkpoint.read_pieces` does."""
        ...


@runtime_checkable
class StoredSource(Protocol):
    """A file on this machine."""

    @property
    def whole_file(self) -> Path | None:
        """The file; None if some of its bytes are still to be fetched."""
        ...


@runtime_checkable
class RemoteSource(Protocol):
    """A file on another machine, whose tensors are fetched one by one."""

    def prepare(self, infos: Iterable[TensorInfo]) -> None:
        """Fetch the values of these tensors, together and before they are read."""
        ...


class HeaderOnly:
    """A file of which only the header was fetched: a merge can be planned with it, but no tensor can be read.

    `fetch` returns bytes of a file, given its name, the first byte and their number; None if the file is out of reach.
    """

    def __init__(self, origin: Origin, fetch: Callable[[str, int, int], bytes] | None = None) -> None:
        self._origin, self._fetch = origin, fetch

    def sample(self, info: TensorInfo) -> bytes:
        """Return at most 64 KiB from the middle of a tensor; none if the file is out of reach."""
        if self._fetch is None:
            return b""
        length = min(info.nbytes, SAMPLE_BYTES)
        return self._fetch(info.file, info.offset + (info.nbytes - length) // 2, length)

    def read(self, info: TensorInfo) -> torch.Tensor:
        """Raise CheckpointError: there are no values."""
        raise self._origin.error(
            f"tensor {info.name!r} cannot be read: only the header of {info.file} was fetched",
            hint="fetch the checkpoint's files before merging it",
            tensor=info.name,
        )

    def close(self) -> None:
        """Do nothing: no file is open."""


class Checkpoint:
    """Named tensors of one model, read when `read` is called. Several threads may read.

    Attributes:
        origin: the checkpoint's place.
        label: its name in messages: a path, or `repo@commit`.
        tensors: the tensors by name.
        config: the content of its config.json; empty if there is none.
        notes: what is unusual about its files, one sentence each.
        names: the names that its weight files have, with the library that loads them.
        metadata: free text in the headers of its files.
    """

    def __init__(
        self,
        origin: Origin,
        tensors: Mapping[str, TensorInfo],
        config: Mapping[str, Any],
        sources: Mapping[str, TensorSource],
        *,
        notes: tuple[str, ...] = (),
        names: WeightNames = TRANSFORMERS,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.origin = origin
        self.label = origin.label
        self.tensors = dict(tensors)
        self.config = dict(config)
        self.notes = notes
        self.names = names_for(names, config)
        self.metadata = dict(metadata or {})
        self._sources = dict(sources)

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor in its stored dtype and shape, on the CPU, in memory of its own.

        Raises:
            CheckpointError: there is no tensor of that name, or its bytes cannot be read.
        """
        info = self.tensors.get(name)
        if info is None:
            raise self.origin.error(
                f"no tensor {name!r} among its {len(self.tensors)} tensors",
                hint="use the names in the checkpoint's own files",
                tensor=name,
            )
        return self._sources[info.file].read(info)

    def read_pieces(self, name: str, elements: int) -> Iterator[torch.Tensor]:
        """Yield a tensor's values in C order, as flat tensors in the stored dtype.

        A piece may reuse the memory of the piece before it.

        Args:
            name: the tensor.
            elements: the number of values in each piece; the last one may be shorter.

        Raises:
            CheckpointError: as `read` does.
        """
        info = self.tensors.get(name)
        source = None if info is None else self._sources.get(info.file)
        if info is not None and isinstance(source, PiecewiseSource):
            return source.read_pieces(info, elements)
        return iter(self.read(name).reshape(-1).split(elements))

    def can_read_pieces(self, name: str) -> bool:
        """Return True if `read_pieces` keeps at most one piece of the tensor in memory."""
        info = self.tensors.get(name)
        return info is not None and isinstance(self._sources.get(info.file), PiecewiseSource)

    def prepare(self, names: Iterable[str]) -> None:
        """Fetch the values of these tensors in few requests; do nothing for files that are on this machine.

        Raises:
            HubmergeError: a value cannot be fetched.
        """
        in_files: dict[str, list[TensorInfo]] = {}
        for name in names:
            info = self.tensors[name]
            in_files.setdefault(info.file, []).append(info)
        for file, infos in in_files.items():
            source = self._sources.get(file)
            if isinstance(source, RemoteSource):
                source.prepare(infos)

    def place_of(self, name: str) -> tuple[str, str]:
        """Return the model that a tensor is read from, and its name there, for messages."""
        return self.label, name

    def changed_from(self, origin: Origin) -> Collection[str]:
        """Return the names of the tensors that may differ from those of the model at `origin`."""
        del origin
        return self.tensors.keys()

    def has_equal_values(self, first: str, second: str) -> bool:
        """Return True if two tensors have equal values. Where only headers were fetched, 64 KiB of each are compared.

        Raises:
            CheckpointError: a value cannot be read.
        """
        one, other = self.tensors[first], self.tensors[second]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return False
        sources = self._sources.get(one.file), self._sources.get(other.file)
        if isinstance(sources[0], HeaderOnly) and isinstance(sources[1], HeaderOnly):
            return sources[0].sample(one) == sources[1].sample(other)
        pieces = (self.read_pieces(name, CHUNK_BYTES) for name in (first, second))
        return all(torch.equal(byte_tensor(mine), byte_tensor(its)) for mine, its in zip(*pieces, strict=True))

    def raw_chunks(self, name: str) -> Iterator[memoryview]:
        """Yield a tensor's stored bytes in chunks of at most 8 MiB, for a byte-identical copy.

        A chunk may reuse the memory of the chunk before it.
        """
        if self.can_read_pieces(name) and self.tensors[name].nbytes:
            for piece in self.read_pieces(name, CHUNK_BYTES // self.tensors[name].dtype.itemsize):
                yield byte_view(piece)
            return
        values = byte_view(self.read(name))
        for begin in range(0, len(values), CHUNK_BYTES):
            yield values[begin : begin + CHUNK_BYTES]

    @property
    def trained_class(self) -> str | None:
        """The class of the model that was trained, None if the config does not name it."""
        return first_architecture(self.config)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that contain the tensors."""
        return tuple(self._sources)

    @property
    def whole_files(self) -> dict[str, Path] | None:
        """The files by name if they are all whole on this machine and have the tensors as they are; None otherwise."""
        found = {}
        for name, source in self._sources.items():
            file = source.whole_file if isinstance(source, StoredSource) else None
            if file is None:
                return None
            found[name] = file
        return found or None

    def close(self) -> None:
        """Close all files; a later `read` opens them again."""
        for source in self._sources.values():
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def byte_view(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor in C order, without a copy if it is contiguous and on the CPU."""
    return byte_tensor(tensor.detach().to("cpu")).numpy().data


def byte_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor in C order, without a copy if it is contiguous."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def architectures(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that a config names, also if there is one that is not in a list.

    >>> architectures({"architectures": [None, "ViTModel"]}), architectures({"architectures": "ViTModel"})
    (['ViTModel'], ['ViTModel'])
    """
    named = config.get("architectures")
    names = named if isinstance(named, list) else [named]
    return [name for name in names if isinstance(name, str)]


def first_architecture(config: Mapping[str, Any]) -> str | None:
    """Return the class that a config names first, None if it names none."""
    return next(iter(architectures(config)), None)
