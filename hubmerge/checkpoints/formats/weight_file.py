"""The reader that fits a weight file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hubmerge.checkpoints.checkpoint import TensorSource
from hubmerge.checkpoints.formats.partial_file import FetchBytes, PartialFile, ranges_path
from hubmerge.checkpoints.formats.pickle_reader import PickleReader
from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.checkpoints.weight_names import SAFETENSORS


def open_weight_file(
    path: Path, origin: Origin, *, fetch: FetchBytes | None = None
) -> tuple[TensorSource, Mapping[str, TensorInfo], Mapping[str, str]]:
    """Return the reader of a weight file, the tensors in the file, and the free text of its header.

    Args:
        path: a `.safetensors` file, whole or made with `create_partial_file`; any other file is read as a pickle.
        origin: the file's place.
        fetch: a function that fetches bytes of the file.

    Raises:
        CheckpointError: the file is not valid.
    """
    if path.suffix != f".{SAFETENSORS}":
        pickled = PickleReader(path, origin)
        return pickled, pickled.tensors, {}
    partial = ranges_path(path).is_file()
    stored = PartialFile(path, origin, fetch=fetch) if partial else SafetensorsReader(path, origin)
    return stored, stored.header.tensors, stored.header.metadata
