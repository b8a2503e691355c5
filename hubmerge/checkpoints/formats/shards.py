"""Distribution of a model's tensors over files, and the writer of all of them with their index.

Large tensors that no step changes get shards of their own, with the same layout at every step: their bytes stay the
same, and a content-addressed store keeps each shard once.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from hubmerge.checkpoints.formats.safetensors_writer import Bytes, SafetensorsWriter, WrittenFile
from hubmerge.checkpoints.tensors import TensorSpec
from hubmerge.checkpoints.weight_names import TRANSFORMERS, WeightNames
from hubmerge.support.files import write_error, write_text_atomic

INDEX_FILE = TRANSFORMERS.index()


@dataclass(frozen=True)
class Shard:
    """One file to be written.

    Attributes:
        file: its name.
        specs: its tensors, in the order given.
        kept: True if they are the base model's, unchanged.
    """

    file: str
    specs: tuple[TensorSpec, ...]
    kept: bool

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes, without the header."""
        return sum(spec.nbytes for spec in self.specs)


KEPT_SHARD_BYTES = 50_000_000
"""Size from which tensors that no step changes get shards of their own; below it, one more file does not pay."""

SMALL_SHARE = 100
"""A shard smaller than the limit divided by this number is joined with another one."""


def plan_shards(
    specs: Sequence[TensorSpec],
    max_shard_bytes: int,
    *,
    kept: Collection[str] = (),
    older: bool = False,
    names: WeightNames = TRANSFORMERS,
) -> tuple[Shard, ...]:
    """Distribute tensors over files of at most `max_shard_bytes` of values, in the order given.

    A tensor larger than the limit gets a shard of its own, with what is too small for a shard. A library that reads no
    index gets one file.

    Args:
        specs: all tensors.
        max_shard_bytes: most bytes of values in one file.
        kept: names of the tensors that are the base model's. If they have `KEPT_SHARD_BYTES` together, they come first,
            in shards of their own.
        older: distribute the tensors as version 0.1.0 did: tensors of the base model always have shards of their own,
            and a shard may be small.
        names: the names of the files.

    Raises:
        ValueError: the limit is not positive.
    """
    if max_shard_bytes <= 0:
        raise ValueError(f"expected a positive limit for shards, found {max_shard_bytes} bytes")
    kept = set(kept)
    parts = [list(specs)]
    unchanged = [spec for spec in specs if spec.name in kept]
    if older or sum(spec.nbytes for spec in unchanged) >= KEPT_SHARD_BYTES:
        parts = [unchanged, [spec for spec in specs if spec.name not in kept]]
    groups = [group for part in parts for group in _fill(part, max_shard_bytes, join=not older)]
    groups = groups if names.sharded or older else [list(specs)]
    if len(groups) == 1:
        return (Shard(names.single(), tuple(groups[0]), _is_kept(groups[0], kept)),)
    return tuple(
        Shard(names.shard(number, len(groups)), tuple(group), _is_kept(group, kept))
        for number, group in enumerate(groups, start=1)
    )


def uses_older_shards(
    files: Collection[str],
    specs: Sequence[TensorSpec],
    max_shard_bytes: int,
    *,
    kept: Collection[str],
    names: WeightNames = TRANSFORMERS,
) -> bool:
    """Return True if version 0.1.0 wrote weight files of these names, and this version would write others."""
    older, current = (
        {shard.file for shard in plan_shards(specs, max_shard_bytes, kept=kept, older=older, names=names)}
        for older in (True, False)
    )
    return set(files) == older != current


def _is_kept(group: Sequence[TensorSpec], kept: Collection[str]) -> bool:
    return all(spec.name in kept for spec in group)


def _fill(specs: Iterable[TensorSpec], max_shard_bytes: int, *, join: bool) -> list[list[TensorSpec]]:
    groups: list[list[TensorSpec]] = []
    room = 0
    for spec in specs:
        if not groups or spec.nbytes > room:
            groups.append([])
            room = max_shard_bytes
        groups[-1].append(spec)
        room -= spec.nbytes
    return _joined(groups, max_shard_bytes) if join else groups


def _joined(groups: list[list[TensorSpec]], max_shard_bytes: int) -> list[list[TensorSpec]]:
    """Join groups that are too small for a shard with one that has room, or with a tensor above the limit."""
    result = [group for group in groups if not _is_small(group, max_shard_bytes)]
    places = [number for number, group in enumerate(groups) if not _is_small(group, max_shard_bytes)]
    for number, group in enumerate(groups):
        if not _is_small(group, max_shard_bytes):
            continue
        nearest = sorted(range(len(result)), key=lambda place: abs(places[place] - number))
        place = next((place for place in nearest if _has_room(result[place], group, max_shard_bytes)), None)
        if place is None:
            result.append(_with_last_of(result, group, max_shard_bytes))
            places.append(number)
        elif places[place] < number:
            result[place] = [*result[place], *group]
        else:
            result[place] = [*group, *result[place]]
    order = sorted(range(len(result)), key=places.__getitem__)
    return [result[place] for place in order]


def _with_last_of(
    groups: Sequence[list[TensorSpec]], group: list[TensorSpec], max_shard_bytes: int
) -> list[TensorSpec]:
    """Return a small group with the last tensor of a group that is full and has several; that group loses it."""
    for full in reversed(groups):
        *others, last = full
        enlarged = [last, *group]
        if not _is_small(others, max_shard_bytes) and _has_room([last], group, max_shard_bytes):
            full.pop()
            return enlarged
    return group


def _is_small(group: Sequence[TensorSpec], max_shard_bytes: int) -> bool:
    return sum(spec.nbytes for spec in group) < max_shard_bytes // SMALL_SHARE


def _has_room(group: Sequence[TensorSpec], more: Sequence[TensorSpec], max_shard_bytes: int) -> bool:
    size = sum(spec.nbytes for spec in group)
    return size > max_shard_bytes or size + sum(spec.nbytes for spec in more) <= max_shard_bytes


class ShardedWriter:
    """Writer of the tensors of all shards into one folder, in any order and from any thread.

        with ShardedWriter(folder, plan_shards(specs, 5_000_000_000)) as writer:
            writer.write("weight", tensor)
            writer.commit()

    Nothing appears under its final name before `commit`; the index of several shards appears last and so marks a
    complete model. Several processes may write, as with `SafetensorsWriter`.

    Args:
        folder: the folder of the files.
        shards: the files, as `plan_shards` returns them.
        metadata: free text for the header of each file.
        index: the name of the index of several shards.
        digests: compute the sha256 of each tensor's values.
        attach: write into files of another process.

    Raises:
        MachineError: the disk is full or the folder may not be written.
        ValueError: a tensor is in two shards.
    """

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        metadata: Mapping[str, str] | None = None,
        *,
        index: str = INDEX_FILE,
        digests: bool = True,
        attach: bool = False,
    ) -> None:
        self.folder = folder
        self._index = index
        self.shards = tuple(shards)
        self._writers: dict[str, SafetensorsWriter] = {}
        self._by_tensor: dict[str, SafetensorsWriter] = {}
        try:
            for shard in self.shards:
                writer = SafetensorsWriter(folder / shard.file, shard.specs, metadata, digests=digests, attach=attach)
                self._writers[shard.file] = writer
                for spec in shard.specs:
                    if spec.name in self._by_tensor:
                        raise ValueError(f"{spec.name!r} is in two shards")
                    self._by_tensor[spec.name] = writer
        except BaseException:
            self.abort()
            raise

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor, of exactly the dtype and shape in its shard."""
        self._writer(name).write(name, tensor)

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write one tensor from pieces of its values in C order."""
        self._writer(name).write_pieces(name, pieces)

    def write_raw(self, name: str, data: Bytes | Iterable[Bytes]) -> None:
        """Write one tensor's values from bytes, or from pieces of them in order."""
        self._writer(name).write_raw(name, data)

    def export_written(self) -> dict[str, str]:
        """Flush what this process wrote into the files of another process; return the tensors' names and digests."""
        return {name: digest for writer in self._writers.values() for name, digest in writer.export_written().items()}

    def import_written(self, written: Mapping[str, str]) -> None:
        """Count as written the tensors that another process returned from `export_written`."""
        for name, digest in written.items():
            self._writer(name).import_written({name: digest})

    def commit(self) -> tuple[WrittenFile, ...]:
        """Rename every shard to its final name, then write the index.

        Returns:
            The files, in the order of the shards.

        Raises:
            ValueError: a tensor has not been written.
            MachineError: a file cannot be flushed or renamed.
        """
        for writer in self._writers.values():
            writer.check_complete()
        # With the index of an earlier model, half of this one would look complete.
        (self.folder / self._index).unlink(missing_ok=True)
        written = tuple(writer.commit() for writer in self._writers.values())
        if len(self.shards) > 1:
            write_index(self.folder, self.shards, self._index)
        return written

    def abort(self) -> None:
        """Remove the files that are not committed."""
        for writer in self._writers.values():
            writer.abort()

    def __enter__(self) -> ShardedWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _writer(self, name: str) -> SafetensorsWriter:
        writer = self._by_tensor.get(name)
        if writer is None:
            raise ValueError(f"{name!r} is in none of the shards")
        return writer


def write_index(folder: Path, shards: Sequence[Shard], name: str = INDEX_FILE) -> Path:
    """Write the index, in which transformers or another library looks up the shard of each tensor.

    Raises:
        MachineError: the file cannot be written.
    """
    places = {spec.name: shard.file for shard in shards for spec in shard.specs}
    index = {
        "metadata": {"total_size": sum(shard.nbytes for shard in shards)},
        "weight_map": dict(sorted(places.items())),
    }
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    path = folder / name
    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise write_error(error, path, len(text)) from error
    return path
