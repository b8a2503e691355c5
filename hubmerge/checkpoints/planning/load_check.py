"""What transformers will make of a model's files, told from config and names before anything is written.

The model is loaded on torch's meta device from tensors without values, with no code but transformers' own.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hubmerge.checkpoints.matching.names import Shapes
from hubmerge.checkpoints.model_class.model_class import import_classes, structure_only
from hubmerge.checkpoints.tensors import describe_shape
from hubmerge.errors import CheckpointError
from hubmerge.support import memo

_KIND = "loads"
_LAYER = re.compile(r"\.\d+(?=\.)")
_RESTORE = "restore the config.json that belongs to the weights"


@dataclass(frozen=True)
class _Loading:
    """What transformers finds, under the names that the class has in memory.

    `missing` are weights of the class that the files lack, `unexpected` tensors that it has no place for, both without
    those of whole layers, `mismatched` sentences on weights of another shape. `lacking_layers` are wholly missing,
    `surplus_layers` wholly unexpected, though other layers beside them are found.
    """

    class_name: str
    finds_any: bool
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    lacking_layers: tuple[str, ...]
    surplus_layers: tuple[str, ...]


def check_loads(config: Mapping[str, Any], written: Shapes, original: Shapes, label: str) -> tuple[str, ...]:
    """Check that transformers finds in a model to be written all that it finds in the original; what is to be told.

    `written` and `original` are what the files hold or will hold, `label` names the model that `config` belongs to.
    What the original lacks or has too much for its class is told and no fault: it loads all the same. Neither is a
    class that transformers does not know, for nothing can be checked then.

    Raises:
        CheckpointError: weights or layers would be missing, are of another shape, or none is found at all.
    """
    try:
        loading = _how_it_loads(config, written, label)
    except _UnknownClassError as unknown:
        return (f"whether the merged model loads is not checked: {unknown}",)
    _check_fit(loading, config, written, label)
    missing = set(loading.missing)
    if missing and set(written) != set(original):
        missing -= set(_how_it_loads(config, original, label).missing)
        if missing:
            raise CheckpointError(
                f"{label}: without its tied copies, {loading.class_name} would lack {_some(missing)}",
                hint="set `tie_word_embeddings` to false in the base model's config.json",
            )
    told = []
    if loading.missing:
        told.append(f"{label} itself lacks {_some(loading.missing)}, which {loading.class_name} makes up when it loads")
    if loading.unexpected:
        told.append(f"{loading.class_name} has no place for {_some(loading.unexpected)} of {label}: they come along")
    return tuple(told)


def _how_it_loads(config: Mapping[str, Any], shapes: Shapes, label: str) -> _Loading:
    """What transformers finds in files with these tensors beside this config.json; asked once and remembered.

    Raises:
        CheckpointError: transformers cannot build the class from the config.
    """
    structure = structure_only(config)
    question = json.dumps([structure, sorted(shapes.items())], sort_keys=True).encode()
    known = memo.get(_KIND, question, _Loading)
    if known is None:
        known = _ask(structure, shapes, label)
        memo.put(_KIND, question, known)
    return known


class _UnknownClassError(Exception):
    """The config names no class of transformers, or one that needs what is not installed; says which."""


def _check_fit(loading: _Loading, config: Mapping[str, Any], shapes: Shapes, label: str) -> None:
    if not loading.finds_any:
        prefix = _prefix_in_the_way(config, shapes, label)
        if prefix is not None:
            raise CheckpointError(
                f"{label}: all names begin with {prefix!r}, so that {loading.class_name} of transformers finds none",
                hint="save the model that is inside the wrapper: `model.module.save_pretrained(...)` for DataParallel",
            )
        raise CheckpointError(
            f"{label}: {loading.class_name} of transformers finds none of its weights among names like {min(shapes)!r}",
            hint=_RESTORE,
        )
    if loading.mismatched:
        raise CheckpointError(
            f"{label}: config.json does not fit the weights: {_some(loading.mismatched)}", hint=_RESTORE
        )
    if loading.lacking_layers:
        raise CheckpointError(
            f"{label}: config.json claims layers that the weights lack: {_some(loading.lacking_layers)}", hint=_RESTORE
        )
    if loading.surplus_layers:
        raise CheckpointError(
            f"{label}: the weights have layers that config.json does not claim: {_some(loading.surplus_layers)}",
            hint=_RESTORE,
        )


def _prefix_in_the_way(config: Mapping[str, Any], shapes: Shapes, label: str) -> str | None:
    """The prefix of all names without which the class finds its weights."""
    first, last = min(shapes), max(shapes)
    for end in (dot.end() for dot in re.finditer(r"\.", first)):
        if not last.startswith(first[:end]):
            break
        if _how_it_loads(config, {name[end:]: shape for name, shape in shapes.items()}, label).finds_any:
            return first[:end]
    return None


def _ask(structure: Mapping[str, Any], shapes: Shapes, label: str) -> _Loading:
    import_classes()
    found = _class_of(structure)
    try:
        with tempfile.TemporaryDirectory() as folder, _quiet():
            (Path(folder) / "config.json").write_text(json.dumps(structure), encoding="utf-8")
            model, told = found.from_pretrained(
                None,
                config=folder,
                state_dict={name: torch.empty(shape, device="meta") for name, shape in shapes.items()},
                device_map="meta",
                attn_implementation="eager",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except ImportError as error:
        raise _UnknownClassError(f"{found.__name__} of transformers: {_first_sentence(error)}") from error
    except Exception as error:  # a config is free text: what a class makes of a wrong one has no common type
        raise CheckpointError(
            f"{label}: config.json does not fit {found.__name__} of transformers: "
            f"{type(error).__name__}: {_first_sentence(error)}",
            hint=_RESTORE,
        ) from error
    missing, unexpected = set(told["missing_keys"]), set(told["unexpected_keys"])
    finds = {name for name, _ in model.named_parameters()} - missing
    present = {layer for name in finds for layer in _layers(name)}
    lists = {_list_of(layer) for layer in present}
    lacking = _whole_layers(missing, present)
    surplus = tuple(layer for layer in _whole_layers(unexpected, present) if _list_of(layer) in lists)
    return _Loading(
        class_name=found.__name__,
        finds_any=bool(finds),
        missing=_outside(missing, lacking),
        unexpected=_outside(unexpected, surplus),
        mismatched=tuple(
            f"{name!r} is {describe_shape(tuple(stored))} in the files and {describe_shape(tuple(built))} by the config"
            for name, stored, built in sorted(told["mismatched_keys"])
        ),
        lacking_layers=lacking,
        surplus_layers=surplus,
    )


def _class_of(config: Mapping[str, Any]) -> Any:
    """The class of transformers that a config names, or the bare one of its kind where it names none."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    version = f"transformers {transformers.__version__}"
    architectures, model_type = config.get("architectures"), config.get("model_type")
    if isinstance(architectures, list) and architectures:
        named = architectures[0]
        found: Any = getattr(transformers, named, None) if isinstance(named, str) else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
        raise _UnknownClassError(f"{version} has no class {named!r}")
    if not isinstance(model_type, str):
        raise _UnknownClassError("config.json names no class and no model_type")
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_MAPPING:
        raise _UnknownClassError(f"{version} has no class for the model_type {model_type!r}")
    found = MODEL_MAPPING[CONFIG_MAPPING[model_type]]
    return found[0] if isinstance(found, tuple) else found


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers say nothing of what is asked here: the answer is told in other words."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _whole_layers(names: Iterable[str], present: Collection[str]) -> tuple[str, ...]:
    """The layers that lie among `names` as a whole, the outermost alone."""
    outermost = (next((layer for layer in _layers(name) if layer not in present), None) for name in names)
    return tuple(sorted({layer for layer in outermost if layer is not None}))


def _layers(name: str) -> Iterator[str]:
    """The numbered parts that a tensor lies in: `encoder.layers.3` for one."""
    return (name[: match.end()] for match in _LAYER.finditer(name))


def _list_of(layer: str) -> str:
    return layer.rpartition(".")[0]


def _outside(names: Iterable[str], layers: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if not any(name.startswith(f"{layer}.") for layer in layers)))


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:300]
