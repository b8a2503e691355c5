"""Selection of the files of a folder or repo that a merge needs, from their names, the index and `modules.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch

from hubmerge.checkpoints.formats.layout import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    CONFIG_FILE,
    LORA_FILES,
    choose_weights,
    read_index,
)
from hubmerge.checkpoints.origin import Origin
from hubmerge.checkpoints.weight_names import is_index
from hubmerge.support.paths import is_inside

ReadFile = Callable[[str], bytes]
"""A function that returns the content of a file of the folder or repo, by its name."""

AUXILIARY_PATTERNS = (
    "*.json",
    "*.txt",
    "*.model",
    "*.model.v[0-9]*",
    "*.tiktoken",
    "*.spm",
    "*.codes",
    "*.dict",
    "*.bpe",
    "*.vocab",
    "*.tokenizer",
    "*.jinja",
    "*.md",
    "LICENSE*",
)
"""Names of files beside the weights that a model needs: configuration, tokenizer, processor, license, card."""

_CODE = (".py", ".pyc", ".so")
_TEMPLATES = "additional_chat_templates"
_MODULES = "modules.json"


def select_model_files(names: Collection[str], read: ReadFile, origin: Origin, *, adapter: bool = False) -> set[str]:
    """Select the files that are merged: the weights in one format, safetensors first, and their configuration.

    An index decides which shards are read. Files that are named but missing are left out.

    Args:
        names: all file names, from the model's folder on.
        read: a function that returns the content of a file.
        origin: the checkpoint.
        adapter: select the files of an adapter. They are also selected where there are no weights of a model.

    Raises:
        CheckpointError: the index is not valid.
    """
    chosen = {CONFIG_FILE}
    weights = None if adapter else choose_weights(names)
    if weights is None:
        files = ADAPTER_FILES if ADAPTER_CONFIG in names else LORA_FILES
        chosen |= {ADAPTER_CONFIG, *[name for name in files if name in names][:1]}
    elif weights.index is None:
        chosen |= {weights.names.config_file, *weights.shards, *filter(None, [weights.single])}
    else:
        weight_map = read_index(read(weights.index), weights.kind, origin.in_file(weights.index))
        chosen |= {weights.names.config_file, weights.index, *weight_map.values()}
    return chosen.intersection(names)


def select_auxiliary_files(names: Collection[str], read: ReadFile) -> set[str]:
    """Select the files beside the weights that a model needs: configuration, tokenizer, processor, license, card.

    They are in the top folder, or in a folder that transformers or sentence-transformers read: chat templates, and the
    modules that `modules.json` lists, which may have weights of their own. Code is never selected.

    Args:
        names: all file names, from the model's folder on.
        read: a function that returns the content of a file.
    """
    chosen = {name for name in names if "/" not in name and _is_auxiliary(name)}
    chosen |= {name for name in names if name.startswith(f"{_TEMPLATES}/") and name.endswith(".jinja")}
    for module in _module_folders(read(_MODULES)) if _MODULES in names else ():
        chosen |= _module_files([name for name in names if name.startswith(f"{module}/")])
    return chosen


def _is_auxiliary(file: str) -> bool:
    return (
        any(fnmatch(file, pattern) for pattern in AUXILIARY_PATTERNS)
        and not file.endswith(_CODE)
        and not is_index(file)
        and file != ADAPTER_CONFIG
    )


def _module_folders(text: bytes) -> Iterator[str]:
    """Yield the folders that a `modules.json` lists; none if the text is not a list of modules."""
    try:
        modules = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return
    for module in modules if isinstance(modules, list) else ():
        path = module.get("path") if isinstance(module, dict) else None
        if isinstance(path, str) and is_inside(path):
            yield path.rstrip("/")


def _module_files(names: Collection[str]) -> set[str]:
    folders: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        folders.setdefault(folder, set()).add(file)
    chosen = set()
    for folder, files in folders.items():
        weights = choose_weights(files)
        single = {weights.single} if weights is not None and weights.single is not None else set()
        chosen |= {f"{folder}/{file}" for file in files if file in single or _is_auxiliary(file)}
    return chosen
