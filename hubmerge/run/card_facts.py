"""Facts of a card that are read from the files of a merged model: heads, and modules of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hubmerge.cards.parts import HeadFacts, ModuleFacts
from hubmerge.support.names import HEADS_FOLDER, head_files
from hubmerge.support.paths import is_inside

MODULES_FILE = "modules.json"

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_POOLING = "pooling_mode_"


def heads_in(folder: Path, entries: Sequence[str]) -> tuple[HeadFacts, ...]:
    """Return the heads in a folder, in the order of the entries; descriptions that cannot be read are left out."""
    if not (folder / HEADS_FOLDER).is_dir():
        return ()
    return tuple(facts for entry in entries if (facts := _head(folder, entry)) is not None)


def _head(folder: Path, entry: str) -> HeadFacts | None:
    found = _read(folder / head_files(entry)[1])
    if not isinstance(found, dict):
        return None
    labels, architecture, problem = (found.get(key) for key in ("labels", "architecture", "problem_type"))
    return HeadFacts(
        entry,
        architecture if isinstance(architecture, str) else None,
        tuple(map(str, labels)) if isinstance(labels, list) else (),
        problem if isinstance(problem, str) else None,
    )


def modules_in(folder: Path) -> tuple[ModuleFacts, ...]:
    """Return the modules of a model of sentence-transformers, in order; none for other models."""
    listed = _read(folder / MODULES_FILE)
    return tuple(_modules(folder, listed)) if isinstance(listed, list) else ()


def _modules(folder: Path, listed: Sequence[Any]) -> Iterator[ModuleFacts]:
    for module in listed:
        kind, path = (module.get(key) for key in ("type", "path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(path, str) or (path and not is_inside(path)):
            continue
        path = path.rstrip("/")
        settings = _read(folder / path / "config.json") if path else None
        has_weights = bool(path) and any((folder / path / name).is_file() for name in _WEIGHTS)
        yield ModuleFacts(
            kind.rpartition(".")[2], path, _settings(settings) if isinstance(settings, dict) else "", has_weights
        )


def _settings(config: Mapping[str, Any]) -> str:
    """Return the settings of pooling and dense layers in words."""
    modes = [key.removeprefix(_POOLING) for key, value in config.items() if key.startswith(_POOLING) and value is True]
    named = config.get("pooling_mode")
    modes += [str(one) for one in (named if isinstance(named, list) else [named]) if one]
    if modes:
        return " + ".join(mode.removesuffix("_tokens").removesuffix("_token") for mode in modes)
    sizes = [config.get(key) for key in ("in_features", "out_features")]
    return f"{sizes[0]} to {sizes[1]} values" if all(isinstance(size, int) for size in sizes) else ""


def _read(path: Path) -> Any:
    """Return the JSON in a file, None if it cannot be read: the files of a published step may be anything."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
