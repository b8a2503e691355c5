"""References to models as mappings, the form in which mergekit writes them into the recipes of merged models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from merge_recipes.errors import KeyPath, Problem, did_you_mean, format_value
from merge_recipes.read_yaml import Document
from merge_recipes.references import is_local_path

_FORM = "{model: {path: ..., revision: ...}, lora: {path: ..., revision: ...}}"
_ARCHITECTURE = "override_architecture"
_KEYS = ("model", "lora", _ARCHITECTURE)
_PARTS = ("path", "revision")


class ReferenceReader:
    """Reader of references of a document. It collects problems and continues.

    Attributes:
        problems: what is wrong with the references.
    """

    def __init__(self, document: Document) -> None:
        self.problems: list[Problem] = []
        self._document = document

    def text(self, value: Any, path: KeyPath) -> Any:
        """Return a reference as text; everything that is not a mapping is returned unchanged."""
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
        return f"unreadable-{len(self.problems)}"

    def _check_keys(self, value: Mapping[str, Any], path: KeyPath, known: tuple[str, ...]) -> bool:
        """Report unknown keys, and return True if there are any."""
        unknown = [key for key in value if key not in known]
        for key in unknown:
            self._report((*path, key), f"unknown key{did_you_mean(key, known)}", at_key=True)
        return bool(unknown)

    def _report(self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False) -> None:
        self.problems.append(self._document.problem(path, message, hint, at_key=at_key))
