"""Check that diffusers, timm or open_clip will load a model's files, from config and names."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.matching.names import Shapes
from hubmerge.checkpoints.model_class.class_lookup import UnknownClass
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.support import memo
from hubmerge.support.text import listed

_KIND = "library"
_PACKAGES = {"diffusers": "diffusers", "timm": "timm", "open_clip": "open_clip_torch"}
_MOST_NAMES = 3


@dataclass(frozen=True)
class Structure:
    """Tensors that a library expects in a model's files.

    Attributes:
        name: the class, with the version of the library.
        shapes: names and shapes.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]


def check_loads_in(
    library: str | None, config: Mapping[str, Any], written: Shapes, config_file: str, place: Origin | str
) -> tuple[str, ...]:
    """Check that a library finds all its weights in a model to be written.

    The library builds the model without values, if it is installed. Otherwise the names and shapes of the base model,
    which the merged model has as well, are all that is known.

    Args:
        library: "diffusers", "timm" or "open_clip"; None for a format that several programs read.
        config: the content of the config.
        written: names and shapes of the tensors to be written.
        config_file: the name of the config.
        place: the place of the model that `config` belongs to, or its name in messages.

    Returns:
        Notes on loading for the user, one sentence each.

    Raises:
        CheckpointError: a weight has another shape in the files than by the config, or none is found.
    """
    origin = Origin.of(place)
    unchecked = "loading of the merged model is not checked: "
    alone = "; names and shapes are those of the base model's files"
    if library is None:
        return (f"{unchecked}the files are those of no single library{alone}",)
    found = _structure(library, config)
    if isinstance(found, UnknownClass):
        return (f"{unchecked}{found.reason}{alone}",)
    _check_shapes(found, written, origin.in_file(config_file))
    notes = []
    if missing := [name for name in found.shapes if name not in written]:
        notes.append(f"{origin} lacks {listed(missing, _MOST_NAMES)}, which {found.name} expects")
    if unexpected := [name for name in written if name not in found.shapes]:
        unused = listed(unexpected, _MOST_NAMES)
        notes.append(f"{found.name} does not use {unused} of {origin}; they are written like all others")
    return tuple(notes)


def _check_shapes(found: Structure, written: Shapes, origin: Origin) -> None:
    hint = f"restore the {origin.file} that was saved with the weights"
    if not found.shapes.keys() & written.keys():
        raise origin.error(
            f"{found.name} finds none of its weights: the tensors have other names ({min(written)!r}, for example)",
            hint=hint,
            tensor=min(written),
        )
    for name, shape in found.shapes.items():
        if name in written and written[name] != shape:
            raise origin.error(
                f"does not match the weights: {name!r} is {describe_shape(written[name])} in the files and "
                f"{describe_shape(shape)} by the config",
                hint=hint,
                tensor=name,
            )


def _structure(library: str, config: Mapping[str, Any]) -> Structure | UnknownClass:
    """Return the tensors that a library expects, from the memo if an earlier run asked; or why it cannot be asked."""
    if importlib.util.find_spec(library) is None:
        return UnknownClass(f"{library} is not installed")
    try:
        described = f"{library} {version(_PACKAGES[library])}"
    except PackageNotFoundError:
        described = library
    question = json.dumps([described, config], sort_keys=True).encode()
    found: Structure | None = memo.get(_KIND, question, Structure)
    if found is not None:
        return found
    try:
        with _quiet():
            name, model = _BUILDERS[library](config)
    except Exception as error:  # a config is free text: the errors of libraries have no common type
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:200]
        return UnknownClass(f"{described} cannot build the model ({type(error).__name__}: {reason})")
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    found = Structure(f"{name} of {described}", shapes)
    memo.put(_KIND, question, found)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the messages of libraries, which warn that a model has no values."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _diffusers_model(config: Mapping[str, Any]) -> tuple[str, torch.nn.Module]:
    diffusers: Any = importlib.import_module("diffusers")
    name = str(config.get("_class_name"))
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise ValueError(f"there is no model class {name!r}")
    with torch.device("meta"):
        model: torch.nn.Module = found.from_config(dict(config))  # type: ignore[attr-defined]
    return name, model


def _timm_model(config: Mapping[str, Any]) -> tuple[str, torch.nn.Module]:
    timm: Any = importlib.import_module("timm")
    with _config_folder(config, "config.json") as folder, torch.device("meta"):
        model: torch.nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=False)
    return str(config.get("architecture")), model


def _open_clip_model(config: Mapping[str, Any]) -> tuple[str, torch.nn.Module]:
    text = config.get("model_cfg", {}).get("text_cfg", {})
    if "hf_model_name" in text:
        raise ValueError(f"the text model is that of another repo, {text['hf_model_name']}")
    open_clip: Any = importlib.import_module("open_clip")
    with _config_folder(config, "open_clip_config.json") as folder, torch.device("meta"):
        model: torch.nn.Module = open_clip.create_model(f"local-dir:{folder}", load_weights=False, device="meta")
    return type(model).__name__, model


def _config_folder(config: Mapping[str, Any], name: str) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    (Path(folder.name) / name).write_text(json.dumps(config), encoding="utf-8", newline="\n")
    return folder


_BUILDERS: dict[str, Callable[[Mapping[str, Any]], tuple[str, torch.nn.Module]]] = {
    "diffusers": _diffusers_model,
    "timm": _timm_model,
    "open_clip": _open_clip_model,
}
