"""Weight files of a folder or repo that are not read, each with the reason."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from hubmerge.checkpoints.formats.layout import ADAPTER_FILES, LORA_FILES
from hubmerge.checkpoints.weight_names import (
    ALL_NAMES,
    CONSOLIDATED,
    PICKLE,
    SAFETENSORS,
    SUFFIX,
    WITH_VARIANTS,
    WeightNames,
)

ADAPTER = "an adapter beside a whole model"
OTHER_FORMAT = "a format that is not read"

_OTHER_FORMATS = re.compile(
    r"(?:tf_model|flax_model|rust_model)[\w.-]*"
    r"|.*\.(?:h5|msgpack|ot|gguf|ggml|onnx|onnx_data|npz|tflite|mlmodel|nemo|ckpt)"
)
_NO_WEIGHTS = re.compile(r"(?:training_args|optimizer|scheduler|scaler|rng_state(?:_\d+)?|random_states_\d+)\.\w+")
_WEIGHTS = re.compile(r".*\.(?:safetensors|bin|pt|pth)")
_SHARD = re.compile(r"(?P<start>.+)-\d+-of-(?P<count>\d+)(?P<suffix>\.\w+)")
_STEM = re.compile(r"(?P<stem>.+?)(?P<variant>(?:\.[\w-]+)?)(?:-\d+-of-\d+)?\.\w+")


@dataclass(frozen=True)
class PassedOver:
    """Files that are not read.

    Attributes:
        name: the name of the file; with a star in place of its number if there are several shards. The name of a folder
            ends in a slash.
        files: the files.
        reason: the reason, in words.
        is_copy: True if the files have the same model in another format or dtype.
    """

    name: str
    files: tuple[str, ...]
    reason: str
    is_copy: bool = False


def passed_over(names: Collection[str], read: Collection[str], used: WeightNames | None) -> tuple[PassedOver, ...]:
    """Return the weight files that are not read, without files of training runs.

    Args:
        names: all file names, from the model's folder on.
        read: the weight files that are read.
        used: their names; None if they are those of an adapter.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        weights = _WEIGHTS.fullmatch(file) or _OTHER_FORMATS.fullmatch(file)
        if name not in read and weights and not _NO_WEIGHTS.fullmatch(file):
            groups.setdefault(f"{folder.partition('/')[0]}/" if folder else _group(file), []).append(name)
    found = (PassedOver(name, tuple(files), *_reason(name, files, read, used)) for name, files in groups.items())
    return tuple(sorted(found, key=lambda one: (one.name.endswith("/"), not one.is_copy, one.name)))


def described(files: Collection[str]) -> str:
    """Return weight files in words: several shards are one name with a star.

    >>> described(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    'model-*-of-00002.safetensors'
    """
    return ", ".join(dict.fromkeys(_group(file) for file in sorted(files)))


def _group(file: str) -> str:
    return _SHARD.sub(r"\g<start>-*-of-\g<count>\g<suffix>", file)


def _reason(name: str, files: list[str], read: Collection[str], used: WeightNames | None) -> tuple[str, bool]:
    """Return why files are not read, and whether they have the same model as those that are."""
    if name.endswith("/"):
        return _reason_of_folder(name, files), False
    if used is None:
        return _reason_beside_adapter(files[0], next(iter(read)))
    if files[0] in (*ADAPTER_FILES, *LORA_FILES):
        return ADAPTER, False
    if _OTHER_FORMATS.fullmatch(files[0]):
        return OTHER_FORMAT, False
    stem, variant, kind = _parts(files[0])
    own = next((one for one in ALL_NAMES if stem == one.stem or stem == one.pickled), None)
    if own is None or (variant and own not in (*WITH_VARIANTS, CONSOLIDATED)):
        return "not a name of weights", False
    if own.of_variant(None) != used.of_variant(None) and own.stem != used.stem:
        return f"{used.library or 'other'} files are read", False
    if variant != (used.variant or ""):
        kept = f"the variant {used.variant} is" if used.variant else "files without a variant are"
        return f"{kept} read", True
    if kind != _parts(next(iter(read)))[2]:
        return "safetensors are read first", True
    if "-of-" in name and used.sharded and len(read) == 1:
        return "one file is read before shards", True
    return "not in the index", "-of-" not in name


def _reason_beside_adapter(file: str, read: str) -> tuple[str, bool]:
    """Return why a file beside an adapter is not read, and whether it has the same adapter."""
    if _parts(file)[0] == _parts(read)[0]:
        return "safetensors are read first", True
    if file in ADAPTER_FILES or file in LORA_FILES:
        return f"{read} is read", False
    if _OTHER_FORMATS.fullmatch(file):
        return OTHER_FORMAT, False
    model = any(_parts(file)[0] in (one.stem, one.pickled) for one in ALL_NAMES)
    return ("a whole model beside the adapter" if model else "not a name of an adapter"), False


def _reason_of_folder(name: str, files: list[str]) -> str:
    stems = {stem for one in ALL_NAMES for stem in (one.stem, one.pickled)}
    inside = [file.removeprefix(name) for file in files]
    model = any(_parts(file)[0] in stems and file.endswith(tuple(SUFFIX.values())) for file in inside)
    return f"a folder: append /{name.rstrip('/')} to read it" if model else "a folder"


def _parts(file: str) -> tuple[str, str, str]:
    """Return the start of a file's name, its variant and its kind."""
    found = _STEM.fullmatch(file)
    kind = SAFETENSORS if file.endswith(SUFFIX[SAFETENSORS]) else PICKLE
    return (file, "", kind) if found is None else (found["stem"], found["variant"].lstrip("."), kind)
