"""Which files of a folder or repo a merge needs, told from their names, from the index and from `modules.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch

from hubmerge.checkpoints.formats.layout import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    CONFIG_FILE,
    choose_weights,
    read_index,
)
from hubmerge.support.paths import is_inside

ReadFile = Callable[[str], bytes]
"""The content of a file of the folder or repo, by its name."""

AUXILIARY = (
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
"""Files beside the weights that make a model usable: configuration, tokenizer, processor, licence, card."""

_CODE = (".py", ".pyc", ".so")
_TEMPLATES = "additional_chat_templates"
_MODULES = "modules.json"


def select_model_files(names: Collection[str], read: ReadFile, label: str, *, adapter: bool = False) -> set[str]:
    """Choose what is merged: the weights in one format, safetensors first, and what describes them.

    `names` are all files, as they are called from the folder of the model on. Of several weight files those count that
    the index names. Where there are no weights of a model, or with `adapter`, those of an adapter are meant. What is
    named and not there is left out.

    Raises CheckpointError, calling the model `label`, if the index is not one.
    """
    chosen = {CONFIG_FILE}
    weights = None if adapter else choose_weights(names)
    if weights is None:
        chosen |= {ADAPTER_CONFIG, *[name for name in ADAPTER_FILES if name in names][:1]}
    elif weights.single is not None:
        chosen.add(weights.single)
    elif weights.index is not None:
        places = read_index(read(weights.index), weights.kind, f"{label}/{weights.index}")
        chosen |= {weights.index, *places.values()}
    return chosen.intersection(names)


def select_auxiliary_files(names: Collection[str], read: ReadFile) -> set[str]:
    """Choose what makes the weights usable: configuration, tokenizer, processor, templates, licence, card.

    Only what lies at the top counts, and the folders that transformers and sentence-transformers read: further chat
    templates, and the modules that `modules.json` names, with weights of their own. Code is never among them.
    """
    chosen = {name for name in names if "/" not in name and _is_auxiliary(name)}
    chosen |= {name for name in names if name.startswith(f"{_TEMPLATES}/") and name.endswith(".jinja")}
    for module in _module_folders(read(_MODULES)) if _MODULES in names else ():
        chosen |= _module_files([name for name in names if name.startswith(f"{module}/")])
    return chosen


def _is_auxiliary(file: str) -> bool:
    return (
        any(fnmatch(file, pattern) for pattern in AUXILIARY)
        and not file.endswith((*_CODE, ".index.json"))
        and file != ADAPTER_CONFIG
    )


def _module_folders(text: bytes) -> Iterator[str]:
    """The folders that a `modules.json` names; what is no list of modules names none."""
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
