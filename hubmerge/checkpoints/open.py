"""Functions that open a checkpoint: from a folder, or from the headers of files on another machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmerge.checkpoints.checkpoint import Checkpoint, HeaderOnly, TensorSource
from hubmerge.checkpoints.formats.header import Header, check_header, header_length, parse_header
from hubmerge.checkpoints.formats.layout import (
    WeightFiles,
    choose_weights,
    find_weights,
    read_index,
    read_json_object,
    read_shards,
)
from hubmerge.checkpoints.formats.partial_file import FetchBytes
from hubmerge.checkpoints.formats.weight_file import open_weight_file
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import TensorInfo
from hubmerge.checkpoints.weight_names import SAFETENSORS, WeightNames
from hubmerge.errors import CheckpointError
from hubmerge.support.text import counted, listed


def open_checkpoint(folder: Path, origin: Origin | str | None = None, *, fetch: FetchBytes | None = None) -> Checkpoint:
    """Open the weights in a folder and check their headers.

    Args:
        folder: a folder with one safetensors file, or several with an index, or `.bin` files, under the names of
            transformers, diffusers, timm, open_clip or Mistral; and its config, if the checkpoint has one.
        origin: the checkpoint's place, or only its name in messages; the folder if left out.
        fetch: a function that fetches bytes of safetensors files made with `create_partial_file`.

    Raises:
        CheckpointError: there are no weights, or a file is missing or not valid.

    Example:
        with open_checkpoint(Path("model")) as checkpoint:
            tensor = checkpoint.read("lm_head.weight")
    """
    origin = Origin(str(folder), folder=folder) if origin is None else Origin.of(origin)
    if not folder.is_dir():
        raise origin.error("not a folder", hint="name a folder with config.json and weights")
    weights = find_weights(_file_names(folder), origin)
    weight_map: dict[str, str] | None = None
    files = [weights.single] if weights.single is not None else list(weights.shards)
    if weights.index is not None:
        index = origin.in_file(weights.index)
        weight_map = read_index(_bytes(folder, index), weights.kind, index)
        files = sorted(set(weight_map.values()))
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise _missing_shards(missing, len(files), origin, f"fetch all files that {weights.index} lists")
    sources: dict[str, TensorSource] = {}
    in_files: dict[str, Mapping[str, TensorInfo]] = {}
    metadata: dict[str, str] = {}
    for file in files:
        sources[file], in_files[file], found = open_weight_file(folder / file, origin.in_file(file), fetch=fetch)
        metadata |= found
    tensors, notes = _all_tensors(weight_map, in_files, origin, weights)
    config = _config(folder, origin.in_file(weights.names.config_file))
    notes = (*notes, *_variant_note(weights.names, origin))
    return Checkpoint(origin, tensors, config, sources, notes=notes, names=weights.names, metadata=metadata)


def _check_shards(files: set[str], headers: Collection[str], origin: Origin) -> None:
    missing = sorted(files - set(headers))
    if missing:
        hint = "the repo is incomplete at this revision: choose another one"
        raise _missing_shards(missing, len(files), origin, hint)


def open_headers(
    headers: Mapping[str, bytes | Mapping[str, Any]],
    config: Mapping[str, Any],
    origin: Origin | str,
    *,
    sizes: Mapping[str, int] | None = None,
    index: bytes | None = None,
    weights: WeightFiles | None = None,
    fetch: FetchBytes | None = None,
) -> Checkpoint:
    """Open safetensors files from their headers alone, to plan with. `read` then raises CheckpointError.

    Args:
        headers: for each file name the file's first bytes (the 8 bytes of length and at least the whole JSON text), or
            the decoded JSON object.
        config: the content of config.json, or of the config under another name.
        origin: the checkpoint's place, or only its name in messages.
        sizes: the sizes of the whole files in bytes.
        index: the content of the index, if there is one.
        weights: the choice among the files; found from their names if left out.
        fetch: a function that fetches bytes of the files, to compare tied tensors. It needs headers given as bytes.

    Raises:
        CheckpointError: as `open_checkpoint` does.
    """
    origin, sizes = Origin.of(origin), sizes or {}
    weights = weights or _chosen_headers(headers, indexed=index is not None)
    single = set(filter(None, [weights.single])) & set(headers)
    index_name = weights.index or weights.names.index()
    weight_map = None if index is None or single else read_index(index, SAFETENSORS, origin.in_file(index_name))
    # A repo may contain its weights twice; the copy that `open_checkpoint` would open counts.
    files = single or (set(headers) if weight_map is None else set(weight_map.values()))
    _check_shards(files, headers, origin)
    found = {file: _header(headers[file], sizes.get(file), origin.in_file(file)) for file in sorted(files)}
    sources = {file: HeaderOnly(origin, fetch) for file in found}
    in_files = {file: header.tensors for file, header in found.items()}
    tensors, notes = _all_tensors(weight_map, in_files, origin, weights)
    metadata = {key: text for header in found.values() for key, text in header.metadata.items()}
    notes = (*notes, *_variant_note(weights.names, origin))
    return Checkpoint(origin, tensors, config, sources, notes=notes, names=weights.names, metadata=metadata)


def _chosen_headers(headers: Collection[str], *, indexed: bool) -> WeightFiles:
    """Return the choice among files of which only the headers are known."""
    chosen = choose_weights(headers)
    if chosen is None or (indexed and (chosen.single is None or chosen.names.variant is not None)):
        return WeightFiles(SAFETENSORS, None, None)
    return chosen


def _variant_note(names: WeightNames, origin: Origin) -> tuple[str, ...]:
    if names.variant is None:
        return ()
    return (f"{origin}: the variant {names.variant} is read, because there is no {names.of_variant(None).single()}",)


def _missing_shards(missing: Sequence[str], count: int, origin: Origin, hint: str) -> CheckpointError:
    return origin.error(f"{len(missing)} of {counted(count, 'shard')} missing: {listed(missing)}", hint=hint)


def _header(header: bytes | Mapping[str, Any], size: int | None, origin: Origin) -> Header:
    if not isinstance(header, bytes):
        # The start of the values is unknown: offsets count from 0, and the file's size cannot be checked.
        return check_header(header, 0, None, origin)
    header_length(header, origin, size=size)
    return parse_header(lambda offset, length: header[offset : offset + length], size, origin)


def _all_tensors(
    weight_map: Mapping[str, str] | None,
    in_files: Mapping[str, Mapping[str, TensorInfo]],
    origin: Origin,
    weights: WeightFiles,
) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """Return all tensors, and notes on an index that does not list them as they are."""
    if weight_map is None and len(in_files) > 1 and not weights.shards:
        raise origin.error(f"{len(in_files)} weight files and no index", hint="save the model with save_pretrained()")
    tensors, notes = read_shards(weight_map or {}, in_files, origin, weights.index or weights.names.index())
    if not tensors:
        raise origin.error("the weight files contain no tensors", hint="save the model with save_pretrained()")
    return tensors, notes if weight_map is not None else ()


def _file_names(folder: Path) -> set[str]:
    """Return the names in a folder, and the files in its folders."""
    names = set()
    for path in folder.iterdir():
        names.add(path.name)
        if path.is_dir() and not path.name.startswith("."):
            names |= {f"{path.name}/{inside.name}" for inside in path.iterdir()}
    return names


def _config(folder: Path, origin: Origin) -> dict[str, Any]:
    exists = (folder / (origin.file or "")).is_file()
    return read_json_object(_bytes(folder, origin), origin) if exists else {}


def _bytes(folder: Path, origin: Origin) -> bytes:
    try:
        return (folder / (origin.file or "")).read_bytes()
    except OSError as error:
        raise origin.unreadable(error) from error
