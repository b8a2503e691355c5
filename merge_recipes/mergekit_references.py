"""References to models as mappings, the form in which mergekit writes them into the recipes of merged models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_recipes.errors import KeyPath, Problem, did_you_mean, format_value
from merge_recipes.read_yaml import Document
from merge_recipes.references import STAGE, is_local_path, is_stage_path

_FORM = "{model: {path: ..., revision: ...}, lora: {path: ..., revision: ...}}"
_ARCHITECTURE = "override_architecture"
_KEYS = ("model", "lora", _ARCHITECTURE)
_PARTS = ("path", "revision")


WITHOUT_OWNER = frozenset(
    {
        *("albert-base-v2", "bert-base-cased", "bert-base-uncased", "bert-large-cased", "bert-large-uncased"),
        *("camembert-base", "ctrl", "distilbert-base-uncased", "distilgpt2", "distilroberta-base", "gpt2"),
        *("gpt2-large", "gpt2-medium", "gpt2-xl", "openai-gpt", "roberta-base", "roberta-large", "t5-11b", "t5-3b"),
        *("t5-base", "t5-large", "t5-small", "xlm-roberta-base", "xlm-roberta-large", "xlnet-base-cased"),
    }
)
"""Repos of the Hub that have names without an owner."""

_UNREADABLE = "unreadable-"
_ADAPTER = re.compile(r"(?<!\\)\+")


@dataclass(frozen=True)
class Stages:
    """The documents of a file that others can refer to.

    Attributes:
        names: by the name in the file, the name in references.
    """

    names: Mapping[str, str]


class ReferenceReader:
    """Reader of references of a document. It collects problems and continues.

    Attributes:
        problems: what is wrong with the references.
        used: the stages that the document refers to, each with the key path of its first use.
    """

    def __init__(self, document: Document, stages: Stages | None = None) -> None:
        self.problems: list[Problem] = []
        self.used: dict[str, KeyPath] = {}
        self._document = document
        self._stages = stages

    def text(self, value: Any, path: KeyPath) -> Any:
        """Return a reference as text, with `stage:` before the name of a document; other values are not changed."""
        found = self._as_text(value, path)
        if not isinstance(found, str) or found.startswith(_UNREADABLE):
            return found
        model, *rest = _ADAPTER.split(found, maxsplit=1)
        name, at, revision = model.partition("@")
        stage = self._stage(name, path)
        return found if stage is None else "".join([f"{STAGE}{stage}", at, revision, *(f"+{one}" for one in rest)])

    def _stage(self, name: str, path: KeyPath) -> str | None:
        """Return the name of the document whose result a model is; None for another model."""
        names = {} if self._stages is None else self._stages.names
        written = name.removeprefix(STAGE)
        if written in names:
            self.used.setdefault(names[written], path)
            return names[written]
        if is_stage_path(name):
            self._report(path, f"the file has no document with the name {written}{did_you_mean(written, names)}")
        elif self._stages is not None and "/" not in name and not is_local_path(name) and name not in WITHOUT_OWNER:
            message = f"the file has no document with the name {format_value(name)}{did_you_mean(name, names)}"
            self._report(path, message, "name a document, owner/name on the Hub, or a folder that starts with ./")
        return None

    def _as_text(self, value: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            return value
        if "path" in value and "model" not in value:
            return self._part(value, path)
        has_unknown_keys = self._check_keys(value, path, _KEYS)
        if value.get(_ARCHITECTURE) is not None:
            hint = "remove the key; the class is read from the config of the model"
            self._report((*path, _ARCHITECTURE), "another class than that of the config is not supported", hint)
        if value.get("model") is None:
            if not has_unknown_keys or "lora" in value:
                self._report((*path, "model"), f"this key is required: expected {_FORM}")
            return self._placeholder()
        model = self._part(value["model"], (*path, "model"))
        if value.get("lora") is None:
            return model
        return f"{model}+{self._part(value['lora'], (*path, 'lora'))}"

    def _part(self, value: Any, path: KeyPath) -> str:
        """Return a model or an adapter as text."""
        if isinstance(value, str):
            return value
        if not isinstance(value, dict):
            self._report(path, f"expected text or {{path: ..., revision: ...}}, got {format_value(value)}")
            return self._placeholder()
        has_unknown_keys = self._check_keys(value, path, _PARTS)
        name, revision = value.get("path"), value.get("revision")
        if not isinstance(name, str):
            if name is not None or not has_unknown_keys:
                self._report((*path, "path"), f"expected text, got {format_value(name)}")
            return self._placeholder()
        if revision is not None and not isinstance(revision, str):
            self._report((*path, "revision"), f"expected text, got {format_value(revision)}", "put it in quotes")
            return self._placeholder()
        name = re.sub("[+@]", r"\\\g<0>", name) if is_local_path(name) else name
        return name if revision is None else f"{name}@{revision}"

    def _placeholder(self) -> str:
        """Return a reference in place of one that cannot be read, so that it has one problem only."""
        return f"{_UNREADABLE}{len(self.problems)}"

    def _check_keys(self, value: Mapping[str, Any], path: KeyPath, known: tuple[str, ...]) -> bool:
        """Report unknown keys, and return True if there are any."""
        unknown = [key for key in value if key not in known]
        for key in unknown:
            self._report((*path, key), f"unknown key{did_you_mean(key, known)}", at_key=True)
        return bool(unknown)

    def _report(self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False) -> None:
        self.problems.append(self._document.problem(path, message, hint, at_key=at_key))
