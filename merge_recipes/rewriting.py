"""Rewriting of a document: values move to other keys, and everything keeps its line in the file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from merge_recipes.errors import KeyPath, Problem
from merge_recipes.gradients import is_gradient
from merge_recipes.read_yaml import Document, Marks
from merge_recipes.yaml_nodes import Position


@dataclass
class Rewriting:
    """The plain data of a document while it is rewritten.

    Attributes:
        document: the document as it is in the file.
        data: the data so far.
        origins: the key paths in the file of values at other key paths.
        keys: the positions of moved keys.
        values: the positions of moved values.
        plain: the text of moved scalars without quotes.
        problems: mistakes.
        notes: remarks.
    """

    document: Document
    data: dict[str, Any]
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    keys: dict[KeyPath, Position] = field(default_factory=dict)
    values: dict[KeyPath, Position] = field(default_factory=dict)
    plain: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    def rewritten(self) -> Document:
        """Return the document with the new data."""
        marks = self.document.marks
        moved = Marks({**marks.keys, **self.keys}, {**marks.values, **self.values}, {**marks.plain, **self.plain})
        return replace(self.document, data=self.data, marks=moved, origins=self.origins)

    def move(self, old: KeyPath, new: KeyPath) -> None:
        """Give the value at `new` the lines of the value that is at `old` in the file."""
        old = self.written(old)
        self.origins[new] = old
        marks, size = self.document.marks, len(old)
        self.keys |= {(*new, *path[size:]): mark for path, mark in marks.keys.items() if path[:size] == old}
        self.values |= {(*new, *path[size:]): mark for path, mark in marks.values.items() if path[:size] == old}
        self.plain |= {(*new, *path[size:]): text for path, text in marks.plain.items() if path[:size] == old}

    def written(self, path: KeyPath) -> KeyPath:
        """Return the key path in the file."""
        return replace(self.document, origins=self.origins).written_path(path)

    def refuse(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Add a problem at a value."""
        self.problems.append(self.document.problem(self.written(path), message, hint))

    def remark(self, path: KeyPath, message: str) -> None:
        """Add a remark at a key."""
        self.notes.append(self.document.problem(self.written(path), message, at_key=True))

    def add_level(self, place: KeyPath, inner: Any) -> None:
        """Put the parameters of a slice or module in front of those of the top level."""
        if not isinstance(inner, dict) or not inner:
            return
        outer = self.data.get("parameters") or {}
        if not isinstance(outer, dict):
            return
        self.data["parameters"] = {**outer}
        for name, value in inner.items():
            after = [(("parameters", name), outer[name])] if name in outer else []
            self.data["parameters"][name] = self.joined(name, [((*place, name), value), *after])

    def joined(self, name: str, levels: list[tuple[KeyPath, Any]]) -> Any:
        """Return the value of a parameter that several levels have, the inner level first."""
        places = [(self.written(place), value) for place, value in levels]
        if not _is_filter_list(places[0][1]) or len(places) == 1:
            self.move(places[0][0], ("parameters", name))
            return places[0][1]
        items: list[Any] = []
        for place, value in places:
            filters = _is_filter_list(value)
            for index, item in enumerate(value if filters else [value]):
                at: KeyPath = ("parameters", name, len(items))
                self.move((*place, index) if filters else place, at if filters else (*at, "value"))
                items.append(item if filters else {"value": item})
        return items


def _is_filter_list(value: Any) -> bool:
    return isinstance(value, list) and not is_gradient(value)
