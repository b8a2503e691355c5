"""Trial load of a model in transformers.

It runs on torch's meta device: with tensors without values, and no code but transformers' own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hubmerge.checkpoints.matching.components import layers_of, stack_of
from hubmerge.checkpoints.matching.names import Shapes
from hubmerge.checkpoints.model_class.class_lookup import (
    UnknownClass,
    config_folder,
    find_class,
    import_classes,
    without_code,
)
from hubmerge.checkpoints.origin import Origin
from hubmerge.support import memo

_KIND = "loads"


@dataclass(frozen=True)
class Mismatch:
    """A weight whose shape in the files is not the one that the config gives."""

    name: str
    in_files: tuple[int, ...]
    by_config: tuple[int, ...]


@dataclass(frozen=True)
class LoadResult:
    """Findings of transformers on load, under the names that the class has in memory.

    Attributes:
        class_name: the class that was loaded.
        finds_any: False if the files have no weight of the class.
        missing: weights of the class that the files lack, without those of missing layers.
        unexpected: tensors that the class does not use, without those of unexpected layers.
        mismatched: weights with another shape.
        missing_layers: layers of the class of which the files have no weight.
        unexpected_layers: layers in the files that the class does not have, in a stack of layers that it has.
    """

    class_name: str
    finds_any: bool
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    missing_layers: tuple[str, ...]
    unexpected_layers: tuple[str, ...]


def load_without_values(config: Mapping[str, Any], shapes: Shapes, origin: Origin) -> LoadResult | UnknownClass:
    """Return what transformers finds in files with these tensors beside this config.json, from the memo if known.

    Args:
        config: the content of config.json.
        shapes: names and shapes of the tensors in the files.
        origin: the model's place.

    Raises:
        CheckpointError: transformers cannot build the class from the config.
    """
    structure = without_code(config)
    question = json.dumps([structure, sorted(shapes.items())], sort_keys=True).encode()
    result: LoadResult | UnknownClass | None = memo.get(_KIND, question, LoadResult)
    if result is None:
        result = _load(structure, shapes, origin)
        if isinstance(result, LoadResult):
            memo.put(_KIND, question, result)
    return result


def _load(structure: Mapping[str, Any], shapes: Shapes, origin: Origin) -> LoadResult | UnknownClass:
    import_classes()
    found = find_class(structure)
    if isinstance(found, UnknownClass):
        return found
    try:
        with config_folder(structure) as folder:
            model, info = found.from_pretrained(
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
        return UnknownClass(f"{found.__name__} of transformers: {_first_sentence(error)}")
    except Exception as error:  # a config is free text: the errors of a class have no common type
        raise origin.in_file("config.json").error(
            f"{found.__name__} of transformers cannot be built from it: "
            f"{type(error).__name__}: {_first_sentence(error)}",
            hint="restore the config.json that was saved with the weights",
        ) from error
    return _result(found.__name__, {name for name, _ in model.named_parameters()}, info)


def _result(class_name: str, parameters: set[str], info: Mapping[str, Any]) -> LoadResult:
    """Sort what transformers reports by whole layers and single weights."""
    missing, unexpected = set(info["missing_keys"]), set(info["unexpected_keys"])
    finds = parameters - missing
    present = {layer for name in finds for layer in layers_of(name)}
    stacks = {stack_of(layer) for layer in present}
    absent = _whole_layers(missing, present)
    further = tuple(layer for layer in _whole_layers(unexpected, present) if stack_of(layer) in stacks)
    return LoadResult(
        class_name=class_name,
        finds_any=bool(finds),
        missing=_outside(missing, absent),
        unexpected=_outside(unexpected, further),
        mismatched=tuple(
            Mismatch(name, tuple(in_files), tuple(by_config))
            for name, in_files, by_config in sorted(info["mismatched_keys"])
        ),
        missing_layers=absent,
        unexpected_layers=further,
    )


def _whole_layers(names: Iterable[str], present: Collection[str]) -> tuple[str, ...]:
    """Return the outermost layers of `names` that are not among the `present` ones."""
    outermost = (next((layer for layer in layers_of(name) if layer not in present), None) for name in names)
    return tuple(sorted({layer for layer in outermost if layer is not None}))


def _outside(names: Iterable[str], layers: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in names if not any(name.startswith(f"{layer}.") for layer in layers)))


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).partition(". ")[0].rstrip(".")[:300]
