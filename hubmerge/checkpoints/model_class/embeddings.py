"""Tensors of a model's class that have a row for each token, found by its class with one token more.

The class is built on torch's meta device, as in `model_class`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hubmerge.checkpoints.model_class.class_lookup import (
    UnknownClass,
    bare_class,
    config_folder,
    import_classes,
    named_class,
    structure_only,
)
from hubmerge.checkpoints.model_class.model_class import ModelClass, build, find_model_class
from hubmerge.support import memo

_KIND = "vocabulary"
_SIZE = "vocab_size"


@dataclass(frozen=True)
class Embeddings:
    """Tensors with a row for each token.

    Attributes:
        axes: by the name in the model's files, the dimension that counts the tokens.
        roles: by the name in the model's files, the name in the class, without the prefix of the bare model.
        ties: tied tensors by their names in the class: alias to owner.
        nested: the keys of config.json that lead to the config with the size of the vocabulary.
    """

    axes: Mapping[str, int]
    roles: Mapping[str, str]
    ties: Mapping[str, str]
    nested: tuple[str, ...] = ()

    def stored_name(self, role: str) -> str | None:
        """Return the tensor in the files for a role: its own, or one that it is tied to; None if there is none."""
        by_role = {one: name for name, one in self.roles.items()}
        owner = self.ties.get(role, role)
        group = [role, owner, *(alias for alias, of in self.ties.items() if of == owner)]
        return next((by_role[one] for one in group if one in by_role), None)


@dataclass(frozen=True)
class _Facts:
    axes: Mapping[str, int]
    prefix: str
    nested: tuple[str, ...]


def find_embeddings(config: Mapping[str, Any], names: Collection[str]) -> Embeddings | UnknownClass:
    """Return the tensors of a model that have a row for each token, or why they are not known.

    Args:
        config: the content of config.json.
        names: the names of the tensors in the model's files.
    """
    known = find_model_class(config, names)
    if not isinstance(known, ModelClass):
        return known
    question = json.dumps(structure_only(config), sort_keys=True).encode()
    facts: _Facts | UnknownClass | None = memo.get(_KIND, question, _Facts)
    if facts is None:
        facts = _ask(config, known.name)
        if isinstance(facts, _Facts):
            memo.put(_KIND, question, facts)
    if not isinstance(facts, _Facts):
        return facts
    prefix = f"{facts.prefix}."
    axes = {name.removeprefix(prefix): axis for name, axis in facts.axes.items()}
    roles = {name: known.own_names.get(name, name).removeprefix(prefix) for name in names}
    roles = {name: role for name, role in roles.items() if role in axes}
    if not roles:
        return UnknownClass(f"{known.name} has no embeddings of tokens in these files")
    ties = {alias.removeprefix(prefix): owner.removeprefix(prefix) for alias, owner in known.ties.items()}
    return Embeddings({name: axes[role] for name, role in roles.items()}, roles, ties, facts.nested)


def _ask(config: Mapping[str, Any], name: str) -> _Facts | UnknownClass:
    import_classes()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        with config_folder(structure_only(config)) as folder:
            small = CONFIG_MAPPING[config["model_type"]].from_pretrained(folder, local_files_only=True)
        large = copy.deepcopy(small)
        text = large.get_text_config()
        setattr(text, _SIZE, getattr(text, _SIZE) + 1)
        nested = tuple(key for key in getattr(large, "sub_configs", {}) if getattr(large, key, None) is text)
        found = named_class(config) or bare_class(config["model_type"])
        models = [build(found, one) for one in (small, large)]
    except Exception as error:  # a config is free text: the errors of a class have no common type
        return UnknownClass(f"{name} cannot be built with another number of tokens: {type(error).__name__}")
    before, after = (
        {key: tuple(one.shape) for key, one in model.state_dict(keep_vars=True).items()} for model in models
    )
    axes = {key: _axis(shape, after.get(key, shape)) for key, shape in before.items()}
    counted = {key: axis for key, axis in axes.items() if axis is not None}
    if not counted:
        return UnknownClass(f"{name} has no embeddings of tokens")
    return _Facts(counted, str(models[0].base_model_prefix), nested)


def _axis(before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Return the dimension that is larger by one, None if there is none."""
    grown = [axis for axis, (one, other) in enumerate(zip(before, after, strict=False)) if other == one + 1]
    return grown[0] if len(grown) == 1 and len(before) == len(after) else None
