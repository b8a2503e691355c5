"""Weight files in a folder or repo, and the index of shards."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.weight_names import (
    ALL_NAMES,
    CONSOLIDATED,
    OPEN_CLIP,
    PICKLE,
    SAFETENSORS,
    SUFFIX,
    TRANSFORMERS,
    WITH_VARIANTS,
    WeightNames,
    one_model,
)
from hubmerge.support.paths import is_inside
from hubmerge.support.text import counted, listed, tensors_are

KINDS = (SAFETENSORS, PICKLE)
CONFIG_FILE = TRANSFORMERS.config_file
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
LORA_FILES = ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")
"""Files with the adapters of a pipeline of diffusers, which have no config beside them."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx", ".npz")
_SHARD = re.compile(r"[\w.]+-\d+-of-\d+\.(?:safetensors|bin)")
_SLICE = re.compile(r"consolidated\.\d+\.(?:safetensors|pth|bin)")
_PIPELINE = "model_index.json"
_MAIN_MODELS = ("transformer", "unet", "prior")
"""Folders of diffusers pipelines with the model that is usually fine-tuned."""

_MOST_SHOWN_FILES = 8

T = TypeVar("T")


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a model.

    Attributes:
        kind: "safetensors" or "pickle".
        single: the one weight file, None if there is an index.
        index: the index of the shards, None if there is none.
        names: the names that the files have.
        shards: the shards, if they have no index.
    """

    kind: str
    single: str | None
    index: str | None
    names: WeightNames = TRANSFORMERS
    shards: tuple[str, ...] = ()


def choose_weights(names: Collection[str]) -> WeightFiles | None:
    """Choose the weight files of a folder or repo.

    Files of transformers come first, then those of diffusers, open_clip, and the original files of Mistral and Llama;
    those of open_clip come first if only its config is there. Variants such as `model.fp16.safetensors` are chosen if
    there is nothing else. Of each, safetensors come before pickles, and a single file before an index, as in
    transformers; diffusers reads an index before a single file.

    Args:
        names: all file names, from the model's folder on.

    Returns:
        The choice, None if there are no weights, or if several variants are different models.
    """
    own = [OPEN_CLIP] if OPEN_CLIP.config_file in names and CONFIG_FILE not in names else []
    for of_library in (*own, *ALL_NAMES):
        chosen = _choose(of_library, names)
        if chosen is not None:
            return chosen
    for of_library in WITH_VARIANTS:
        variants = of_library.variants(names)
        if variants and one_model(variants):
            return _choose(of_library.of_variant(variants[0]), names)
    return None


def _choose(of_library: WeightNames, names: Collection[str]) -> WeightFiles | None:
    for kind in KINDS:
        single, index = of_library.single(kind), of_library.index(kind)
        sharded = index in names and of_library.sharded
        if single in names and not (sharded and of_library.index_first):
            return WeightFiles(kind, single, None, of_library)
        if sharded:
            return WeightFiles(kind, None, index, of_library)
    return _choose_consolidated(names) if of_library == CONSOLIDATED else None


def _choose_consolidated(names: Collection[str]) -> WeightFiles | None:
    """Choose numbered files of Mistral without an index, or the one file of Llama."""
    shards = sorted(name for name in names if name.startswith("consolidated-") and _SHARD.fullmatch(name))
    if shards and shards == [CONSOLIDATED.shard(number, len(shards)) for number in range(1, len(shards) + 1)]:
        return WeightFiles(SAFETENSORS, None, None, CONSOLIDATED, tuple(shards))
    slices = _slices(names)
    if len(slices) != 1:
        return None
    return WeightFiles(
        SAFETENSORS if slices[0].endswith(SUFFIX[SAFETENSORS]) else PICKLE, slices[0], None, CONSOLIDATED
    )


def _slices(names: Collection[str]) -> list[str]:
    """Return files such as `consolidated.00.pth`; if there are several, each one has a slice of every tensor."""
    found = sorted(name for name in names if _SLICE.fullmatch(name))
    stored = [name for name in found if name.endswith(SUFFIX[SAFETENSORS])]
    return stored or [name for name in found if name.endswith(".pth")] or found


def find_weights(names: Collection[str], origin: Origin) -> WeightFiles:
    """Choose the weight files as `choose_weights` does.

    Raises:
        CheckpointError: there are none; the message lists the files that were found instead.
    """
    chosen = choose_weights(names)
    if chosen is not None:
        return chosen
    if any(name in names for name in (ADAPTER_CONFIG, *LORA_FILES)):
        raise origin.error(
            "an adapter, not a whole model",
            hint="write its model in front of it: owner/model+owner/adapter; a base model must be a whole model",
        )
    found = sorted(names, key=lambda name: (not name.endswith(_WEIGHTS), "/" in name, name))
    folders = _model_folders(found)
    plain = [name for name in found if not ("/" in name or name.startswith(".") or name in folders)]
    found = [name for name in found if name.endswith(_WEIGHTS) or name in plain]
    _check_several(names, origin)
    if folders and _PIPELINE in names:
        raise origin.error(
            f"a pipeline of diffusers ({_PIPELINE}), whose models are in folders: {listed(folders)}",
            hint=f"append the folder of one model to the name of this one: {origin.label.partition('@')[0]}/"
            f"{folders[0]}",
        )
    listing = listed(found, _MOST_SHOWN_FILES) or "nothing"
    raise origin.error(
        f"no weights: expected {' or '.join(_names_of(TRANSFORMERS))}, found {listing}",
        hint=_way_to_weights(found),
    )


def _check_several(names: Collection[str], origin: Origin) -> None:
    """Refuse files of which none can be chosen: variants that are different models, and slices of tensors."""
    for of_library in WITH_VARIANTS:
        variants = of_library.variants(names)
        if variants:
            kept = of_library.of_variant(variants[0]).single()
            raise origin.error(
                f"{counted(len(variants), 'variant')} of the weights ({listed(variants)}) and no {of_library.single()}",
                hint=f"copy the files of one variant into a folder, {kept} for example, and name that folder",
            )
    slices = _slices(names)
    if slices:
        raise origin.error(
            f"{counted(len(slices), 'file')} with a slice of every tensor each ({listed(slices)}), for "
            f"{counted(len(slices), 'GPU')}",
            hint="name a version of this model that transformers saved, or join the slices",
        )


def _names_of(of_library: WeightNames) -> list[str]:
    return [one(kind) for one in (of_library.single, of_library.index) for kind in KINDS]


def _model_folders(found: Sequence[str]) -> list[str]:
    """Return the folders with weights, those of usual main models first."""
    folders = {name.partition("/")[0] for name in found if "/" in name and name.endswith(_WEIGHTS)}
    main = [folder for folder in _MAIN_MODELS if folder in folders]
    return [*main, *sorted(folders.difference(main))]


def _way_to_weights(found: Sequence[str]) -> str:
    """Return the hint for a model whose weight files, which come first in `found`, have unexpected names."""
    known = {name for of_library in ALL_NAMES for name in _names_of(of_library)}
    folders = [name.rpartition("/")[0] for name in found if "/" in name and name.rpartition("/")[2] in known]
    if folders:
        return f"to use the model in that folder, append /{folders[0]} to the model's name"
    first = found[0] if found else ""
    if _SHARD.fullmatch(first):
        return (
            f"{first} is a shard, and its index is missing: fetch the index too, or load the model and save it again "
            "with save_pretrained()"
        )
    if first.endswith(".gguf"):
        return "GGUF files are usually quantized: merge the version of the model that was saved by transformers"
    if first.endswith(_WEIGHTS):
        return f"load {first} with the library that wrote it, save it with save_pretrained(), and name the new folder"
    return "save the model with save_pretrained()"


def read_index(text: bytes, kind: str, origin: Origin) -> dict[str, str]:
    """Return the map of an index from tensor names to file names.

    Args:
        text: the content of the index.
        kind: the kind of files that it may name: "safetensors" or "pickle".
        origin: the index file.

    Raises:
        CheckpointError: the text is not an index, or names a file of another kind or outside the folder.
    """
    weight_map = read_json_object(text, origin).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise origin.error("expected a `weight_map` from tensor names to files", hint="save the model again")
    files = {file for file in weight_map.values() if isinstance(file, str)}
    inside = {file for file in files if is_inside(file) and file.endswith(SUFFIX[kind])}
    for name, file in weight_map.items():
        if not isinstance(file, str) or file not in inside:
            raise origin.error(
                f"tensor {name!r} is listed for {file!r}, expected a {SUFFIX[kind]} file inside the folder",
                hint="do not use this checkpoint unless you know who wrote it",
                tensor=name,
            )
    return weight_map


def read_json_object(text: bytes, origin: Origin) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        CheckpointError: the text is not a JSON object.
    """
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise origin.error(f"not valid JSON: {error}", hint="fetch the file again") from error
    if not isinstance(value, dict):
        raise origin.error(f"expected a JSON object, found {type(value).__name__}", hint="fetch the file again")
    return value


def read_shards(
    weight_map: Mapping[str, str], in_files: Mapping[str, Mapping[str, T]], origin: Origin, index: str
) -> tuple[dict[str, T], tuple[str, ...]]:
    """Return the tensors of all shards as transformers reads them, and notes on what the index does not say.

    transformers takes the files from the index, and from each file all tensors, in the order of the file names. Of a
    tensor in two shards it reads the one in the last shard.

    Args:
        weight_map: the file of each tensor, from the index.
        in_files: the tensors in each file.
        origin: the checkpoint.
        index: the name of the index.

    Raises:
        CheckpointError: a tensor in the index is in none of the files.
    """
    tensors: dict[str, T] = {}
    places: dict[str, list[str]] = {}
    for file in sorted(in_files):
        tensors.update(in_files[file])
        for name in in_files[file]:
            places.setdefault(name, []).append(file)
    for name, file in weight_map.items():
        if name not in tensors:
            raise origin.in_file(index).error(
                f"the index lists tensor {name!r} for {file}, but no shard has it; transformers would give it random "
                "values",
                hint="fetch all files again from one revision; if the model ties this tensor to another one, remove "
                "its line from the index",
                tensor=name,
            )
    return tensors, tuple(f"{origin}: {note}" for note in _shard_notes(weight_map, places))


def _shard_notes(weight_map: Mapping[str, str], places: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the differences between an index and the shards that contain each tensor."""
    notes = []
    several = [name for name, files in places.items() if len(files) > 1]
    unlisted = [name for name in places if name not in weight_map]
    elsewhere = [name for name, files in places.items() if name in weight_map and weight_map[name] not in files]
    if several:
        last = places[several[0]][-1]
        notes.append(
            f"{tensors_are(several)} in more than one shard: read from the last one ({last}), as in transformers"
        )
    if unlisted:
        notes.append(
            f"{tensors_are(unlisted)} not in the index: read from {places[unlisted[0]][-1]}, as in transformers"
        )
    if elsewhere:
        found, listed_for = places[elsewhere[0]][-1], weight_map[elsewhere[0]]
        notes.append(f"{tensors_are(elsewhere)} in {found}, not in {listed_for}: read from there, as in transformers")
    return notes
