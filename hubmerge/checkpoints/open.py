"""Opening a checkpoint: from a folder, or from the headers of files that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint, HeaderOnly, TensorSource
from hubmerge.checkpoints.formats.header import Header, check_header, header_length, parse_header
from hubmerge.checkpoints.formats.layout import (
    CONFIG_FILE,
    SAFETENSORS,
    SINGLE_FILE,
    check_against_index,
    find_weights,
    read_index,
    read_json_object,
)
from hubmerge.checkpoints.formats.partial_file import FetchBytes, PartialFile, ranges_path
from hubmerge.checkpoints.formats.pickle_reader import PickleReader
from hubmerge.checkpoints.formats.safetensors_reader import SafetensorsReader
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.errors import CheckpointError


def open_checkpoint(folder: Path, label: str | None = None, *, fetch: FetchBytes | None = None) -> Checkpoint:
    """Open the weights in a folder: one safetensors file or several, or `.bin` files; headers are checked now.

    `label` names the checkpoint in messages, the folder's path if it is left out. A folder without a
    config.json has an empty `config`. Of safetensors files begun with `create_partial_file`, `fetch` brings what is
    read.

    Raises CheckpointError naming the file and tensor that are wrong.
    """
    label = str(folder) if label is None else label
    if not folder.is_dir():
        raise CheckpointError(f"{label}: not a folder", hint="expected a folder with config.json and weights")
    weights = find_weights({path.name for path in folder.iterdir()}, label)
    places: dict[str, str] | None = None
    files = [weights.single] if weights.single is not None else []
    if weights.index is not None:
        places = read_index(_bytes(folder / weights.index, label), weights.kind, f"{label}/{weights.index}")
        files = sorted(set(places.values()))
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise CheckpointError(
                _missing(label, missing, len(files)),
                hint=f"fetch all files that {weights.index} names",
            )
    sources: dict[str, TensorSource] = {}
    in_files: dict[str, dict[str, TensorInfo]] = {}
    for file in files:
        if weights.kind == SAFETENSORS:
            stored = _safetensors(folder / file, f"{label}/{file}", file, fetch)
            sources[file], in_files[file] = stored, stored.header.tensors
        else:
            pickled = PickleReader(folder / file, f"{label}/{file}", file=file)
            sources[file], in_files[file] = pickled, pickled.tensors
    return Checkpoint(label, _joined(places, in_files, label), _config(folder, label), sources)


def open_headers(
    headers: Mapping[str, bytes | Mapping[str, Any]],
    config: Mapping[str, Any],
    label: str,
    *,
    sizes: Mapping[str, int] | None = None,
    index: bytes | None = None,
) -> Checkpoint:
    """Open safetensors files of which only the headers are here, to plan with; `read` raises CheckpointError.

    `headers` maps each file name to the file's first bytes (the 8 bytes of length and at least the whole JSON
    text), or to the decoded JSON object. `sizes` are the lengths of the whole files in bytes, `index` the text
    of the index if there is one.

    Raises CheckpointError as `open_checkpoint` does.
    """
    sizes = {} if sizes is None else sizes
    single = {SINGLE_FILE} & set(headers)
    places = read_index(index, SAFETENSORS, f"{label}/the index") if index is not None and not single else None
    # A repo may hold more than one copy of its weights; the one that counts is that which a folder would open.
    files = single or (set(headers) if places is None else set(places.values()))
    missing = sorted(files - set(headers))
    if missing:
        raise CheckpointError(
            _missing(label, missing, len(files)),
            hint="the repo is incomplete at this revision: choose another one",
        )
    in_files = {
        file: _header(headers[file], sizes.get(file), f"{label}/{file}", file).tensors for file in sorted(files)
    }
    sources = {file: HeaderOnly(label) for file in in_files}
    return Checkpoint(label, _joined(places, in_files, label), config, sources)


def _missing(label: str, missing: Sequence[str], count: int) -> str:
    are = "is" if len(missing) == 1 else "are"
    return f"{label}: {len(missing)} of {count} shards {are} missing, the first is {missing[0]}"


def _safetensors(path: Path, label: str, file: str, fetch: FetchBytes | None) -> SafetensorsReader:
    if ranges_path(path).is_file():
        return PartialFile(path, label, file=file, fetch=fetch)
    return SafetensorsReader(path, label, file=file)


def _header(header: bytes | Mapping[str, Any], size: int | None, label: str, file: str) -> Header:
    if not isinstance(header, bytes):
        # Where the values begin is unknown; offsets then count from 0, and only the JSON can be checked.
        return check_header(header, 0, None, label, file=file)
    header_length(header, label, size=size)
    return parse_header(lambda offset, length: header[offset : offset + length], size, label, file=file)


def _joined(
    places: Mapping[str, str] | None, in_files: Mapping[str, Mapping[str, TensorInfo]], label: str
) -> dict[str, TensorInfo]:
    if places is not None:
        check_against_index(places, in_files, label)
    elif len(in_files) > 1:
        raise CheckpointError(
            f"{label}: {len(in_files)} files and no index that says which tensor is in which",
            hint="save the model again with save_pretrained()",
        )
    tensors = {name: info for infos in in_files.values() for name, info in infos.items()}
    if not tensors:
        raise CheckpointError(f"{label}: the weights hold no tensor", hint="save the model again")
    return tensors


def _config(folder: Path, label: str) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    return read_json_object(_bytes(path, label), f"{label}/{CONFIG_FILE}") if path.is_file() else {}


def _bytes(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{label}/{path.name}: cannot be read: {error.strerror or error}",
            hint="check that the file exists and that you may read it",
        ) from error
