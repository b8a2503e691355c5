"""Which files of a folder or repo hold the weights, told from their names and from the index."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hubmerge.errors import CheckpointError
from hubmerge.support.paths import is_inside

SAFETENSORS = "safetensors"
PICKLE = "pickle"

SINGLE_FILE = "model.safetensors"
_SINGLE = {SINGLE_FILE: SAFETENSORS, "pytorch_model.bin": PICKLE}
_INDEX = {"model.safetensors.index.json": SAFETENSORS, "pytorch_model.bin.index.json": PICKLE}
CONFIG_FILE = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_SUFFIX = {SAFETENSORS: ".safetensors", PICKLE: ".bin"}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz")
_SHARD = re.compile(r"(?:model|pytorch_model)-\d+-of-\d+\.(?:safetensors|bin)")
_VARIANT = re.compile(r"(?:model|pytorch_model)\.([\w-]+)(?:-\d+-of-\d+)?\.(?:safetensors|bin)")


@dataclass(frozen=True)
class WeightFiles:
    """Where the weights are: `kind` is "safetensors" or "pickle"; either one `single` file or an `index`."""

    kind: str
    single: str | None
    index: str | None


def choose_weights(names: Collection[str]) -> WeightFiles | None:
    """Choose among the file names of a folder or repo, as transformers does: safetensors before pickles."""
    for kind in (SAFETENSORS, PICKLE):
        for candidates, indexed in ((_SINGLE, False), (_INDEX, True)):
            for name, of_kind in candidates.items():
                if of_kind == kind and name in names:
                    return WeightFiles(kind, None if indexed else name, name if indexed else None)
    return None


def find_weights(names: Collection[str], label: str) -> WeightFiles:
    """Choose as `choose_weights` does.

    Raises CheckpointError listing what was found instead.
    """
    chosen = choose_weights(names)
    if chosen is not None:
        return chosen
    if ADAPTER_CONFIG in names:
        raise CheckpointError(
            f"{label}: an adapter, not a whole model",
            hint="name the model it belongs to in front of it (owner/model+owner/adapter); the base model of a recipe "
            "has to be a whole model",
        )
    found = sorted(names, key=lambda name: (not name.endswith(_WEIGHTS), "/" in name, name))
    found = [name for name in found if name.endswith(_WEIGHTS) or not ("/" in name or name.startswith("."))]
    listing = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "") if found else "nothing"
    raise CheckpointError(
        f"{label}: no weights: expected {' or '.join([*_SINGLE, *_INDEX])}, found {listing}",
        hint=_way_to_weights(found),
    )


def _way_to_weights(found: Sequence[str]) -> str:
    """What to do where the weights, which stand first in `found`, are not called as expected."""
    folders = [name.rpartition("/")[0] for name in found if name.rpartition("/")[2] in {*_SINGLE, *_INDEX}]
    if folders:
        return f"there is a model in a folder of it: if that is meant, put /{folders[0]} behind the name"
    first = found[0] if found else ""
    if _SHARD.fullmatch(first):
        missing = f"{first} is a shard, and the index that says which tensor is in which is missing"
        return f"{missing}: fetch it as well, or load the model and save it again with save_pretrained()"
    if variant := _VARIANT.fullmatch(first):
        loaded = f'from_pretrained(..., variant="{variant[1]}")'
        return f"{first} is a variant: load it with {loaded}, save it with save_pretrained(), and name that"
    if first.endswith(".gguf"):
        return "a GGUF file is mostly quantised: merge the version of the model that was saved by transformers"
    if first.endswith(_WEIGHTS):
        return f"load {first} with the library that wrote it, save the model with save_pretrained(), and name that"
    return "save the model with save_pretrained()"


def read_index(text: bytes, kind: str, label: str) -> dict[str, str]:
    """The index's map from tensor name to file name, checked: every file lies inside the folder.

    Raises CheckpointError naming the entry that is wrong.
    """
    index = read_json_object(text, label)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(
            f"{label}: expected a `weight_map` from tensor names to files", hint="save the model again"
        )
    for name, file in places.items():
        if not isinstance(file, str) or not is_inside(file) or not file.endswith(_SUFFIX[kind]):
            raise CheckpointError(
                f"{label}: tensor {name!r} is said to be in {file!r}, "
                f"expected a {_SUFFIX[kind]} file inside the folder",
                hint="do not use this checkpoint unless you know who wrote it",
            )
    return places


def read_json_object(text: bytes, label: str) -> dict[str, Any]:
    """A JSON object from bytes. Raises CheckpointError if it is anything else."""
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{label}: not valid JSON: {error}", hint="fetch the file again") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{label}: expected a JSON object, found {type(value).__name__}", hint="fetch the file again"
        )
    return value


def check_against_index(places: Mapping[str, str], in_files: Mapping[str, Collection[str]], label: str) -> None:
    """Check that the index and the files tell the same.

    `in_files` maps each file to the names of the tensors it holds. Raises CheckpointError naming the first
    tensor that the index promises and the file lacks, or that a file holds and the index does not mention.
    """
    for name, file in places.items():
        if name not in in_files[file]:
            raise CheckpointError(
                f"{label}: tensor {name!r} is not in {file}, where the index puts it",
                hint="the index belongs to other shards: fetch all files again from one revision",
            )
    for file, names in in_files.items():
        for name in names:
            if places.get(name) != file:
                elsewhere = f"puts it in {places[name]}" if name in places else "does not mention it"
                raise CheckpointError(
                    f"{label}: {file} holds tensor {name!r}, but the index {elsewhere}",
                    hint="the index belongs to other shards: fetch all files again from one revision",
                )
