"""Configs without tied embeddings, and the settings of a config on which the use of embeddings depends."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from hubmerge.checkpoints.model_class.class_lookup import config_folder, import_classes, structure_only
from hubmerge.checkpoints.model_class.model_class import TYING, ModelClass, find_model_class

_OTHER_KEYS = (TYING, "tie_embedding")
"""Keys that tie embeddings; the second one is that of LFM 2, and counts more."""


def untied_config(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any] | None:
    """Return a config under which the model's class ties no embeddings and computes its output in one and the same way.

    T5 scales the input of a tied head, and no other; there is no such config for it.

    Args:
        config: the content of config.json.
        names: the names of the tensors in the model's files.
    """
    found = find_model_class(config, names)
    if not isinstance(found, ModelClass) or found.reads_tying:
        return None
    parsed = _parsed(config)
    changed = _untied(config, parsed)
    return changed if _settings(_parsed(changed)) == _settings(parsed) else None


def embedding_settings(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return those settings of a config that decide how the class uses embeddings and head, without the tie itself."""
    found = find_model_class(config, names)
    if not isinstance(found, ModelClass):
        return {}
    parsed = _parsed(config)
    # What follows from the tie is often saved beside it: only a config without other keys shows what follows.
    tied, untied = (_settings(_parsed({"model_type": config["model_type"], TYING: tied})) for tied in (True, False))
    own = _settings(parsed)
    settings = {key: own.get(key) for key in tied if tied[key] != untied.get(key)}
    return {**settings, TYING: getattr(parsed, TYING, None)} if found.reads_tying else settings


def _untied(config: Mapping[str, Any], parsed: Any) -> dict[str, Any]:
    changed: dict[str, Any] = {key: False if key in _OTHER_KEYS else value for key, value in config.items()}
    for key, value in config.items():
        nested = getattr(parsed, key, None)
        if isinstance(value, Mapping) and getattr(nested, TYING, False):
            changed[key] = _untied(value, nested)
    return {**changed, TYING: False}


def _parsed(config: Mapping[str, Any]) -> Any:
    """Return the config object of transformers."""
    import_classes()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with config_folder(structure_only(config)) as folder:
        return CONFIG_MAPPING[config["model_type"]].from_pretrained(folder, local_files_only=True)


def _settings(parsed: Any) -> dict[str, Any]:
    found: dict[str, Any] = _without_tying(parsed.to_dict())
    return found


def _without_tying(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_tying(one) for key, one in value.items() if key not in _OTHER_KEYS}
    return value
