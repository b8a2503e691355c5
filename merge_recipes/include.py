"""Tasks that a recipe keeps in files of their own: `- include: ../tasks/sun397.yaml` in the list of tasks.

An included file holds the keys of one task. It is read as if its text stood in the recipe, and the recipe's text comes
out with it written in, so that what is published needs no other file. Only YAML files next to the recipe's folder or
below are read, and an included file includes no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from merge_recipes.errors import KeyPath, Problem, RecipeError, key_text, shown
from merge_recipes.read_yaml import MAX_FILE_BYTES, Document, Marks, read_document, read_text
from merge_recipes.rules import items_at

Mark = TypeVar("Mark")

INCLUDE = "include"
TASKS: KeyPath = ("evaluate", "tasks")
MAX_INCLUDES = 200
SUFFIXES = (".yaml", ".yml")

_LINE = re.compile(r"(?P<before>(?: |- )*)include:[ \t]+(?P<value>\S.*)")
_OWN_LINE = "write it on a line of its own: `- include: FILE`"


@dataclass(frozen=True)
class Inclusion:
    """A document with the included tasks in their places; `lost` are the tasks that could not be read."""

    document: Document
    lost: tuple[KeyPath, ...] = ()

    def hides(self, problem: Problem) -> bool:
        """Tell whether a problem only follows from a task that could not be read."""
        return any(problem.key.startswith(key_text(path)) for path in self.lost)


@dataclass
class _Parts:
    """What the resulting document is gathered from."""

    keys: dict[KeyPath, tuple[int, int]]
    values: dict[KeyPath, tuple[int, int]]
    plain: dict[KeyPath, str]
    files: dict[KeyPath, str]
    problems: list[Problem]
    lost: list[KeyPath] = field(default_factory=list)
    texts: dict[KeyPath, Document] = field(default_factory=dict)


def with_included(document: Document, path: Path | None) -> Inclusion:
    """Return the document with every included task in its place.

    `path` is the recipe's file; None where the recipe is a text without a file, which can include nothing. What is
    wrong goes to the document's problems, with the file and the line it stands in.
    """
    items = [(key, item) for key, item in items_at(document, *map(str, TASKS)) if INCLUDE in item]
    if not items:
        return Inclusion(document)
    marks = document.marks
    parts = _Parts(dict(marks.keys), dict(marks.values), dict(marks.plain), {}, list(document.problems))
    data = {**document.data, "evaluate": {**document.data["evaluate"]}}
    tasks = data["evaluate"]["tasks"] = list(data["evaluate"]["tasks"])
    for number, (key, item) in enumerate(items):
        try:
            if number >= MAX_INCLUDES:
                raise RecipeError(_at(document, key, f"more than {MAX_INCLUDES} included files"))
            tasks[int(key[-1])] = _included(document, path, key, item, parts)
        except RecipeError as error:
            parts.problems += error.problems
            parts.lost.append(key)
    whole = replace(
        document,
        data=data,
        marks=Marks(parts.keys, parts.values, parts.plain),
        problems=tuple(parts.problems),
        files=parts.files,
    )
    if not parts.lost:
        try:
            whole = replace(whole, text=_written_in(document, whole, parts.texts))
        except RecipeError as error:
            whole = replace(whole, problems=(*whole.problems, *error.problems))
    return Inclusion(whole, tuple(parts.lost))


def _included(
    document: Document, path: Path | None, key: KeyPath, item: Mapping[str, Any], parts: _Parts
) -> dict[str, Any]:
    """Read the file that an item names; its keys come behind those beside `include`."""
    file = _located(document, path, key, item[INCLUDE])
    label = os.path.normpath(Path(document.file).parent / item[INCLUDE])
    try:
        text = read_text(file)
    except RecipeError as error:
        raise RecipeError(_at(document, key, f"{item[INCLUDE]}: {error.problems[0].message}")) from None
    inner = read_document(text, label)
    if not isinstance(inner.data, dict):
        raise RecipeError(inner.problem((), f"expected the keys of one task, got {shown(inner.data)}"))
    if INCLUDE in inner.data:
        message = "an included file cannot include another"
        raise RecipeError(inner.problem((INCLUDE,), message, "include it in the recipe", at_key=True))
    own = {name: value for name, value in item.items() if name != INCLUDE}
    parts.files[key] = label
    parts.files.update({(*key, name): document.file for name in own})
    _add(parts.keys, inner.marks.keys, key, own)
    _add(parts.values, inner.marks.values, key, own)
    _add(parts.plain, inner.marks.plain, key, own)
    parts.problems += [replace(problem, key=f"{key_text(key)}.{problem.key}") for problem in inner.problems]
    parts.texts[key] = inner
    return {**inner.data, **own}


def _add(target: dict[KeyPath, Mark], source: Mapping[KeyPath, Mark], key: KeyPath, but: Collection[str]) -> None:
    """Add what an included file knows of its keys, except of those that the recipe gives itself."""
    target.update({(*key, *path): mark for path, mark in source.items() if not path or path[0] not in but})


def _located(document: Document, path: Path | None, key: KeyPath, value: Any) -> Path:
    """Return the file that `include` names, which lies next to the recipe's folder or below."""
    if not isinstance(value, str) or not value:
        raise RecipeError(_at(document, key, f"expected the path of a YAML file, got {shown(value)}"))
    if path is None:
        message = "a recipe that is read from its text alone can include no file"
        raise RecipeError(_at(document, key, message, "write the task out"))
    if not value.endswith(SUFFIXES):
        raise RecipeError(_at(document, key, f"{shown(value)} is not a YAML file: expected a name in .yaml or .yml"))
    try:
        folder = path.absolute().parent.resolve()
        file = (folder / value).resolve()
        allowed = not Path(value).is_absolute() and file.is_relative_to(folder.parent)
        regular = file.is_file() or not file.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(_at(document, key, f"{shown(value)} cannot be found: {error}")) from None
    if not allowed:
        message = (
            f"{shown(value)} lies elsewhere: a recipe includes files from its own folder, the one above, and below"
        )
        raise RecipeError(
            _at(document, key, message, "put the file there, and write its path from the recipe's folder")
        )
    if not regular:
        raise RecipeError(_at(document, key, f"{shown(value)} is not a file"))
    return file


def _at(document: Document, key: KeyPath, message: str, hint: str | None = None) -> Problem:
    return document.problem((*key, INCLUDE), message, hint)


def _written_in(document: Document, whole: Document, texts: Mapping[KeyPath, Document]) -> str:
    """Return the recipe's text with the included texts in their places, checked to say the same."""
    lines = document.text.split("\n")
    # An item that stands in the text once may be in the list several times, by its alias.
    places = {document.marks.key((*key, INCLUDE)): key for key in texts}
    for (line, column), key in sorted(places.items(), reverse=True):
        match = _LINE.fullmatch(lines[line - 1].rstrip("\r"))
        if match is None or len(match["before"]) != column - 1:
            raise RecipeError(_at(document, key, "an include that shares its line cannot be written in", _OWN_LINE))
        alone = all(place[: len(key)] != key or place[len(key) :] in {(), (INCLUDE,)} for place in document.marks.keys)
        indent = " " * (column - 1)
        body = list(_body(texts[key]))
        if alone:
            lines[line - 1 : line] = [match["before"] + body[0], *_indented(body[1:], indent)]
        else:
            lines[line - 1 : line] = [f"{match['before']}<<:", *_indented(body, f"{indent}  ")]
    text = "\n".join(lines)
    first = min(places.items())[1]
    if len(text.encode()) > MAX_FILE_BYTES:
        raise RecipeError(
            _at(document, first, f"with what it includes, the recipe is larger than {MAX_FILE_BYTES} bytes")
        )
    try:
        same = read_document(text, document.file).data == whole.data
    except RecipeError as error:
        reason = f": {error.problems[0].message}"
        raise RecipeError(
            _at(document, first, f"the included files cannot be written into the recipe{reason}")
        ) from None
    if not same:
        message = "the included files mean something else within the recipe"
        raise RecipeError(_at(document, first, message, "give anchors names that no other file uses"))
    return text


def _body(inner: Document) -> Iterator[str]:
    """Yield the lines of an included file from its first key on, without its indentation."""
    line, column = inner.marks.value(())
    for text in inner.text.rstrip().split("\n")[line - 1 :]:
        yield text[column - 1 :].rstrip("\r") if not text[: column - 1].strip() else text.rstrip("\r")


def _indented(lines: list[str], indent: str) -> list[str]:
    return [indent + line if line else line for line in lines]
