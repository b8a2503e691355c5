"""Functions that open the models of a stream: to plan from headers alone, or to read the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from hubmerge.checkpoints import (
    AdaptedCheckpoint,
    Adapter,
    Checkpoint,
    PipelineAdapter,
    base_model_of,
    create_partial_file,
    is_partial_file,
    open_adapter,
    open_checkpoint,
    open_headers,
)
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, LORA_FILES, choose_weights, read_json_object
from hubmerge.checkpoints.weight_names import TRANSFORMERS
from hubmerge.errors import CheckpointError
from hubmerge.hub import fetch
from hubmerge.hub.checked_files import RemoteFile
from hubmerge.stream.sources import Source, cached_bytes, fetch_folder, files_of


def resolve_adapter(source: Source) -> Source:
    """Return the base model with the source as its adapter if the source is an adapter alone, else the source itself.

    Raises:
        CheckpointError: The adapter was trained for another model than the base model.
    """
    if source.adapter is not None or source.base is None or not fetch.is_adapter(files_of(source)):
        return source
    adapter = replace(source, base=None, is_adapter=True)
    made_for = base_model_of(adapter_config(adapter))
    base = source.base.reference
    if made_for is None or made_for.rstrip("/") not in {base.path, base.written_path}:
        raise CheckpointError(
            f"{source.label} is an adapter for {made_for or 'an unnamed model'}; the recipe merges into {base}",
            hint=f"to apply the adapter to the base model anyway, write: {base}+{source.reference}",
            repo=None if source.is_local else source.reference.path,
            commit=None if source.is_local else source.commit,
        )
    return replace(source.base, adapter=adapter, base=source.base)


def open_source(source: Source, partial_downloads: Path | None = None) -> Checkpoint:
    """Open a source to read its weights, after downloading the files that are missing.

    Args:
        source: Source returned by `resolve_adapter`.
        partial_downloads: Folder for models that are not downloaded whole. Only the headers of their safetensors are
            fetched now, the tensors when they are asked for. None to download every file into the Hub cache.

    Raises:
        CheckpointError: The files are not a model.
    """
    model = _open_model(source, partial_downloads)
    if source.adapter is None:
        return model
    return AdaptedCheckpoint(model, open_adapter(fetch_folder(source.adapter), source.adapter.origin))


def open_base(source: Source, folder: Path) -> Checkpoint:
    """Open the base model, whose files are in `folder`, with its adapter if it has one.

    Raises:
        CheckpointError: The files are not a model, or the adapter does not fit it.
    """
    model = open_checkpoint(folder, replace(source, adapter=None).label)
    if source.adapter is None:
        return model
    return AdaptedCheckpoint(model, open_adapter(fetch_folder(source.adapter), source.adapter.origin))


def partial_folder(source: Source, partial_downloads: Path) -> Path:
    """Return the folder of a model that is not downloaded whole."""
    return partial_downloads / f"{source.commit}-{hashlib.sha256(source.label.encode()).hexdigest()[:8]}"


def is_fetched_partially(source: Source, files: Sequence[RemoteFile]) -> bool:
    """Return True if a model with these files needs a download and allows one of single tensors: safetensors."""
    weights = [file for file in files if file.path.endswith(".safetensors")]
    return not source.is_local and bool(weights) and cached_bytes(source, weights) < sum(file.size for file in weights)


def open_for_planning(source: Source, base: Checkpoint | None = None) -> Checkpoint:
    """Open a source without reading weights; of safetensors on the Hub, fetch the headers only.

    A pickle has no header of its own, so it is downloaded.

    Args:
        source: Source returned by `resolve_adapter`.
        base: Checkpoint of `source.base`, which is then not opened again for an adapter.

    Raises:
        CheckpointError: The files are not a model.
    """
    is_base = source.base is not None and (source.reference, source.commit) == (
        source.base.reference,
        source.base.commit,
    )
    model = base if base is not None and is_base else _open_model_header(source)
    return model if source.adapter is None else AdaptedCheckpoint(model, _open_adapter_header(source.adapter))


def fetched_sources(source: Source) -> tuple[Source, ...]:
    """Return the sources that are fetched for a source: the model, then its adapter if it has one."""
    model = replace(source, adapter=None, base=None)
    return (model,) if source.adapter is None else (model, source.adapter)


def _open_model(source: Source, partial_downloads: Path | None) -> Checkpoint:
    files = {} if partial_downloads is None else {source.name_of(file): file for file in files_of(source)}
    if partial_downloads is None or not is_fetched_partially(source, tuple(files.values())):
        return open_checkpoint(fetch_folder(source), source.origin)
    repo, commit, folder = source.reference.path, source.commit, partial_folder(source, partial_downloads)
    for name, file in files.items():
        if not name.endswith(".safetensors"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_read_file(source, file))
        elif not is_partial_file(folder / name, file.size):
            create_partial_file(folder / name, fetch.read_header(repo, commit, file), file.size)
    return open_checkpoint(
        folder,
        source.origin,
        fetch=lambda name, offset, length: fetch.read_range(repo, commit, files[name].path, offset, length),
    )


def _open_model_header(source: Source) -> Checkpoint:
    if source.is_local:
        # `fetch_folder` checks the digest later, before weights are read.
        return open_checkpoint(Path(source.reference.path), source.origin)
    files = files_of(source)
    weights = [file for file in files if file.path.endswith(".safetensors")]
    if not weights:
        return open_checkpoint(fetch_folder(source), source.origin)
    texts = {source.name_of(file): _read_file(source, file) for file in files if file.path.endswith(".json")}
    chosen = choose_weights([source.name_of(file) for file in files])
    config_file = (chosen.names if chosen is not None else TRANSFORMERS).config_file
    place = source.origin.in_file(config_file)
    config = read_json_object(texts[config_file], place) if config_file in texts else {}
    return open_headers(
        {source.name_of(file): fetch.read_header(source.reference.path, source.commit, file) for file in weights},
        config,
        source.origin,
        sizes={source.name_of(file): file.size for file in weights},
        index=texts.get(chosen.index) if chosen is not None and chosen.index is not None else None,
        weights=chosen,
        fetch=partial(_read_bytes, source),
    )


def _open_adapter_header(source: Source) -> Adapter | PipelineAdapter:
    weights = [file for file in files_of(source) if file.path.endswith(".safetensors")]
    if source.is_local or not weights:
        return open_adapter(fetch_folder(source), source.origin)
    header = fetch.read_header(source.reference.path, source.commit, weights[0])
    name, size = source.name_of(weights[0]), weights[0].size
    config, fetch_bytes = adapter_config(source), partial(_read_bytes, source)
    files = open_headers({name: header}, config, source.origin, sizes={name: size}, fetch=fetch_bytes)
    return PipelineAdapter(files) if name in LORA_FILES else Adapter(files)


def adapter_config(source: Source) -> dict[str, object]:
    """Return the config of an adapter of peft; empty for one of diffusers, which has none."""
    if any(source.name_of(file) in LORA_FILES for file in files_of(source)):
        return {}
    return _read_json(source, ADAPTER_CONFIG)


def _read_json(source: Source, name: str) -> dict[str, object]:
    file = next((file for file in files_of(source) if source.name_of(file) == name), None)
    if file is None:
        raise CheckpointError(
            f"{source.label} is not an adapter: {name} not found", hint="name a LoRA adapter after the +", file=name
        )
    return read_json_object(_read_file(source, file), source.origin.in_file(name))


def _read_bytes(source: Source, name: str, offset: int, length: int) -> bytes:
    """Return bytes of a file on the Hub; from the cache if the whole file is there."""
    file = next(file for file in files_of(source) if source.name_of(file) == name)
    if cached_bytes(source, [file]) == file.size:
        with (fetch.download(source.reference.path, source.commit, [file]) / file.path).open("rb") as stream:
            stream.seek(offset)
            return stream.read(length)
    return fetch.read_range(source.reference.path, source.commit, file.path, offset, length)


def _read_file(source: Source, file: RemoteFile) -> bytes:
    if source.is_local:
        return (fetch_folder(source) / file.path).read_bytes()
    return fetch.read_file(source.reference.path, source.commit, file)
