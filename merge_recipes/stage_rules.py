"""Rules of recipe files with several documents: their names, the order of their merges, and which one is the result.

A document with a `name:` is a stage. Other documents use its merged model under this name, as in `mergekit-multi`. The
result of the file is the document without a name or, if all have one, the one that no other document uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from merge_recipes.entry_names import valid_name
from merge_recipes.errors import KeyPath, Problem, format_value
from merge_recipes.mergekit_references import WITHOUT_OWNER, Stages
from merge_recipes.queries import ENTRY, kind_of_item
from merge_recipes.read_yaml import Document
from merge_recipes.references import is_local_path

_OF_RESULT = ("publish", "evaluate", "on_update")
"""Keys of the document of the result alone."""


@dataclass(frozen=True)
class NamedDocument:
    """A document of a file with several.

    Attributes:
        document: the document without its key `name`.
        name: the name in references, None if it has no name.
        written: the name in the file.
    """

    document: Document
    name: str | None = None
    written: str | None = None

    @property
    def title(self) -> str:
        """The name for messages."""
        return "the document without a name" if self.written is None else format_value(self.written)

    def problem(self, message: str, hint: str | None = None) -> Problem:
        """Return a problem at the name, or at the beginning of a document without one."""
        return self.document.problem(("name",) if self.written is not None else (), message, hint)


def named_documents(documents: Sequence[Document], folder: Path | None) -> tuple[list[NamedDocument], list[Problem]]:
    """Return the documents of a file with their names, and the problems of the names.

    Args:
        documents: the documents.
        folder: the folder of the file; None for a text without a file.
    """
    found = [_named(document) for document in documents]
    problems = [problem for one in found for problem in _name_problems(one, folder)]
    earlier: dict[str | None, NamedDocument] = {}
    for one in found:
        if one.name in earlier:
            line = earlier[one.name].problem("").line
            if one.name is None:
                message, hint = "a second document has no name", "add `name: ...`; the result alone may have none"
            else:
                message, hint = f"the name {one.title} is taken by the document in line {line}", "write another name"
            problems.append(one.problem(message, hint))
        earlier.setdefault(one.name, one)
    return found, problems


def _named(document: Document) -> NamedDocument:
    data = document.data
    if not isinstance(data, dict) or data.get("name") is None:
        return NamedDocument(document)
    name = data["name"]
    rest = replace(document, data={key: value for key, value in data.items() if key != "name"})
    return NamedDocument(rest, valid_name(str(name)), name if isinstance(name, str) else str(name))


def _name_problems(one: NamedDocument, folder: Path | None) -> Iterator[Problem]:
    name = one.written
    if name is None:
        return
    if is_local_path(name):
        yield one.problem(f"the name {one.title} reads as a folder", "write a name without ./, ../, / or ~")
    elif "/" in name or name in WITHOUT_OWNER:
        yield one.problem(f"the name {one.title} is also that of a repo on the Hub", "write another name")
    elif "+" in name or "@" in name or not name.strip():
        yield one.problem(f"the name {one.title} cannot be part of a reference", "write a name without + and @")
    elif folder is not None and len(name) < 200 and (folder / name).is_dir():
        hint = "write another name, or move the folder"
        yield one.problem(f"the name {one.title} is also that of a folder beside the recipe", hint)


def stages_of(documents: Sequence[NamedDocument]) -> Stages:
    """Return the names that references can have."""
    return Stages({one.written: one.name for one in documents if one.name is not None and one.written is not None})


def stage_problems(one: NamedDocument) -> Iterator[Problem]:
    """Yield the problems of a document that is not the result."""
    data: dict[str, Any] = one.document.data if isinstance(one.document.data, dict) else {}
    for key in _OF_RESULT:
        if data.get(key) is not None:
            message = f"{key} belongs to the document of the result; {one.title} is a stage before it"
            yield one.document.problem((key,), message, "move the key to the document of the result", at_key=True)
    models = data.get("models")
    for index, item in enumerate(models if isinstance(models, list) else []):
        if isinstance(item, dict) and kind_of_item(item) != ENTRY:
            message = "queries belong to the document of the result"
            yield one.document.problem(("models", index), message, "name the models")


@dataclass(frozen=True)
class Order:
    """The order of the merges of a file.

    Attributes:
        result: the place of the document of the result.
        before: the places of the documents that it needs, each after those that it uses itself.
        unused: the places of the documents that it does not need.
    """

    result: int
    before: tuple[int, ...]
    unused: tuple[int, ...] = ()


def merge_order(
    documents: Sequence[NamedDocument], used: Sequence[Mapping[str, KeyPath]]
) -> tuple[Order | None, list[Problem]]:
    """Return the order of the merges, and why there is none.

    Args:
        documents: the documents.
        used: for each document the stages that it refers to, with the key path of the first reference.
    """
    places = {one.name: place for place, one in enumerate(documents) if one.name is not None}
    needs = [[places[name] for name in names] for names in used]
    circle = _circle(needs)
    if circle:
        first, second = circle[0], circle[1]
        path = used[first][str(documents[second].name)]
        names = " uses ".join(documents[place].title for place in circle)
        message = f"the documents use each other in a circle: {names}"
        return None, [documents[first].document.problem(path, message, "name another model in one of them")]
    unnamed = [place for place, one in enumerate(documents) if one.name is None]
    results = unnamed or sorted(set(range(len(documents))) - {place for places in needs for place in places})
    if len(results) > 1:
        names = ", ".join(documents[place].title for place in results)
        message = f"the file has several results: no document uses {names}; expected one result"
        return None, [documents[results[1]].problem(message, "write each result into a file of its own")]
    before: list[int] = []
    _visit(results[0], needs, before)
    unused = tuple(place for place in range(len(documents)) if place not in before)
    return Order(results[0], tuple(before[:-1]), unused), []


def _visit(place: int, needs: Sequence[Sequence[int]], found: list[int]) -> None:
    """Append the documents that one needs, then the document itself."""
    for other in needs[place]:
        if other not in found:
            _visit(other, needs, found)
    found.append(place)


def _circle(needs: Sequence[Sequence[int]]) -> list[int]:
    """Return the places of a circle, the first one again at the end; an empty list if there is none."""
    done: set[int] = set()

    def search(path: list[int]) -> list[int]:
        for other in needs[path[-1]]:
            if other in path:
                return [*path[path.index(other) :], other]
            if other not in done and (found := search([*path, other])):
                return found
        done.add(path[-1])
        return []

    return next((found for place in range(len(needs)) if place not in done and (found := search([place]))), [])
