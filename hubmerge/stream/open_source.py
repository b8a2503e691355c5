"""Opening what a stream merges: models, models with an adapter, and adapters alone; whole, or to plan with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hubmerge.checkpoints import (
    AdaptedCheckpoint,
    Adapter,
    Checkpoint,
    base_model_of,
    begin_partial_file,
    is_begun,
    open_adapter,
    open_checkpoint,
    open_headers,
)
from hubmerge.checkpoints.formats.layout import ADAPTER_CONFIG, read_json_object
from hubmerge.errors import CheckpointError
from hubmerge.hub import fetch
from hubmerge.stream.sources import Source, cached_bytes, fetch_folder, files_of


def open_source(source: Source, parts: Path | None = None) -> Checkpoint:
    """Open a source whose files are here, or will be: they are downloaded if they are not.

    With `parts`, safetensors that are not in the Hub cache are not downloaded: what is read of them is fetched into
    a folder below `parts`, see `part_folder`.

    Raises:
        CheckpointError: the files hold no model, or an adapter for another model.
    """
    source = with_model(source)
    model = _model(source, parts)
    if source.adapter is None:
        return model
    return AdaptedCheckpoint(model, open_adapter(fetch_folder(source.adapter), source.adapter.label))


def part_folder(source: Source, parts: Path) -> Path:
    """Where what is fetched of a model lies, where it is not fetched whole."""
    return parts / f"{source.commit}-{hashlib.sha256(source.label.encode()).hexdigest()[:8]}"


def is_fetched_in_parts(source: Source, files: Sequence[fetch.RemoteFile]) -> bool:
    """Whether a model of these files can be fetched in parts, and has to be fetched: safetensors that are not here."""
    weights = [file for file in files if file.path.endswith(".safetensors")]
    return not source.is_local and bool(weights) and cached_bytes(source, weights) < sum(file.size for file in weights)


def open_planned(source: Source, base: Checkpoint | None = None) -> Checkpoint:
    """Open a source to plan with. Of safetensors on the Hub only the headers are read.

    `base` is the checkpoint of `source.base`, which then need not be opened again for an adapter. A pickle has no
    header that could be read apart, so such a checkpoint is downloaded.

    Raises:
        CheckpointError: the files hold no model, or an adapter for another model.
    """
    source = with_model(source)
    known = source.base is not None and (source.reference, source.commit) == (source.base.reference, source.base.commit)
    model = base if base is not None and known else _planned_model(source)
    return model if source.adapter is None else AdaptedCheckpoint(model, _planned_adapter(source.adapter))


def parts_of(source: Source) -> tuple[Source, ...]:
    """Return what is fetched for a source: the model, and the adapter if there is one."""
    source = with_model(source)
    model = replace(source, adapter=None, base=None)
    return (model,) if source.adapter is None else (model, source.adapter)


def with_model(source: Source) -> Source:
    """Put the base model in front of a source that turns out to be an adapter alone; return others as they are.

    Raises:
        CheckpointError: the adapter was made for another model than the base model.
    """
    if source.adapter is not None or source.base is None or not fetch.is_adapter(files_of(source)):
        return source
    adapter = replace(source, base=None, is_adapter=True)
    made_for = base_model_of(_small_json(adapter, ADAPTER_CONFIG))
    base = source.base.reference
    if made_for is None or made_for.rstrip("/") not in {base.path, base.written_path}:
        raise CheckpointError(
            f"{source.label}: an adapter for {made_for or 'a model it does not name'}, the base model of the recipe is "
            f"{base}",
            hint=f"if it is to be applied to the base model all the same, write: {base}+{source.reference}",
        )
    return replace(source.base, adapter=adapter, base=source.base)


def _model(source: Source, parts: Path | None) -> Checkpoint:
    files = {} if parts is None else {source.name_of(file): file for file in files_of(source)}
    if parts is None or not is_fetched_in_parts(source, tuple(files.values())):
        return open_checkpoint(fetch_folder(source), source.label)
    repo, commit, folder = source.reference.path, source.commit, part_folder(source, parts)
    for name, file in files.items():
        if not name.endswith(".safetensors"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(_text(source, file))
        elif not is_begun(folder / name, file.size):
            begin_partial_file(folder / name, fetch.read_header(repo, commit, file), file.size)
    return open_checkpoint(
        folder,
        source.label,
        fetch=lambda name, offset, length: fetch.read_range(repo, commit, files[name].path, offset, length),
    )


def _planned_model(source: Source) -> Checkpoint:
    if source.is_local:
        # Whether the folder is still what was locked is found out when its weights are read.
        return open_checkpoint(Path(source.reference.path), source.label)
    files = files_of(source)
    weights = [file for file in files if file.path.endswith(".safetensors")]
    if not weights:
        return open_checkpoint(fetch_folder(source), source.label)
    texts = {source.name_of(file): _text(source, file) for file in files if file.path.endswith(".json")}
    config = read_json_object(texts["config.json"], f"{source.label}/config.json") if "config.json" in texts else {}
    return open_headers(
        {source.name_of(file): fetch.read_header(source.reference.path, source.commit, file) for file in weights},
        config,
        source.label,
        sizes={source.name_of(file): file.size for file in weights},
        index=texts.get("model.safetensors.index.json"),
    )


def _planned_adapter(source: Source) -> Adapter:
    weights = [file for file in files_of(source) if file.path.endswith(".safetensors")]
    if source.is_local or not weights:
        return open_adapter(fetch_folder(source), source.label)
    header = fetch.read_header(source.reference.path, source.commit, weights[0])
    name, size = source.name_of(weights[0]), weights[0].size
    config = _small_json(source, ADAPTER_CONFIG)
    return Adapter(source.label, config, open_headers({name: header}, config, source.label, sizes={name: size}))


def _small_json(source: Source, name: str) -> dict[str, object]:
    file = next((file for file in files_of(source) if source.name_of(file) == name), None)
    if file is None:
        raise CheckpointError(f"{source.label}: not an adapter: it has no {name}", hint="name a LoRA adapter")
    return read_json_object(_text(source, file), f"{source.label}/{name}")


def _text(source: Source, file: fetch.RemoteFile) -> bytes:
    if source.is_local:
        return (fetch_folder(source) / file.path).read_bytes()
    return fetch.read_file(source.reference.path, source.commit, file)
