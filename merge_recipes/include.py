"""Tasks in separate files: `- include: ../tasks/sun397.yaml` in the list of tasks.

An included file has the keys of one task, as they would be in the recipe. The text of the recipe is published with
the included tasks inserted, so that it needs no other file. Only YAML files in the recipe's folder, in its parent
folder, or below are read. An included file cannot include another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from merge_recipes.errors import KeyPath, Problem, RecipeError, format_value, key_text
from merge_recipes.read_yaml import MAX_FILE_BYTES, Document, Marks, read_document, read_text
from merge_recipes.rules import items_at

Mark = TypeVar("Mark")

INCLUDE = "include"
TASKS: KeyPath = ("evaluate", "tasks")
MAX_INCLUDES = 200
SUFFIXES = (".yaml", ".yml")

_LINE = re.compile(r"(?P<before>(?: |- )*)include:[ \t]+(?P<value>\S.*)")
_OWN_LINE = "write `- include: FILE` on a line of its own"


@dataclass(frozen=True)
class Inclusion:
    """A document with included tasks; `unread` are the key paths of tasks that could not be read."""

    document: Document
    unread: tuple[KeyPath, ...] = ()

    def hides(self, problem: Problem) -> bool:
        """Return True if a problem is only a consequence of a task that could not be read."""
        return any(problem.key.startswith(key_text(path)) for path in self.unread)


@dataclass
class _Merged:
    """Positions and problems of a document and the files that it includes."""

    keys: dict[KeyPath, tuple[int, int]]
    values: dict[KeyPath, tuple[int, int]]
    plain: dict[KeyPath, str]
    files: dict[KeyPath, str]
    problems: list[Problem]
    unread: list[KeyPath] = field(default_factory=list)
    included: dict[KeyPath, Document] = field(default_factory=dict)


def insert_included(document: Document, path: Path | None) -> Inclusion:
    """Return a recipe's document with every included task in its place.

    Args:
        document: the recipe. Mistakes in included files are added to its problems, with their file and line.
        path: the recipe's file; None for a recipe without a file, which cannot include files.
    """
    items = [(key, item) for key, item in items_at(document, *map(str, TASKS)) if INCLUDE in item]
    if not items:
        return Inclusion(document)
    marks = document.marks
    merged = _Merged(dict(marks.keys), dict(marks.values), dict(marks.plain), {}, list(document.problems))
    data = {**document.data, "evaluate": {**document.data["evaluate"]}}
    tasks = data["evaluate"]["tasks"] = list(data["evaluate"]["tasks"])
    for number, (key, item) in enumerate(items):
        try:
            if number >= MAX_INCLUDES:
                raise RecipeError(document.problem((*key, INCLUDE), f"more than {MAX_INCLUDES} included files"))
            tasks[int(key[-1])] = _read_task(document, path, key, item, merged)
        except RecipeError as error:
            merged.problems += error.problems
            merged.unread.append(key)
    whole = replace(
        document,
        data=data,
        marks=Marks(merged.keys, merged.values, merged.plain),
        problems=tuple(merged.problems),
        files=merged.files,
    )
    if merged.unread:
        return Inclusion(whole, tuple(merged.unread))
    return Inclusion(_with_text(document, whole, merged.included))


def _read_task(
    document: Document, path: Path | None, key: KeyPath, item: Mapping[str, Any], merged: _Merged
) -> dict[str, Any]:
    """Return the keys of an included file, replaced by the keys beside `include`."""
    file = located_file(document, path, key, item[INCLUDE])
    label = os.path.normpath(Path(document.file).parent / item[INCLUDE])
    try:
        text = read_text(file)
    except RecipeError as error:
        raise RecipeError(document.problem((*key, INCLUDE), f"{item[INCLUDE]}: {error.problems[0].message}")) from None
    inner = read_document(text, label)
    if not isinstance(inner.data, dict):
        raise RecipeError(inner.problem((), f"expected the keys of one task, got {format_value(inner.data)}"))
    if INCLUDE in inner.data:
        message = "an included file cannot include another"
        raise RecipeError(inner.problem((INCLUDE,), message, "include both files in the recipe", at_key=True))
    own = {name: value for name, value in item.items() if name != INCLUDE}
    merged.files[key] = label
    merged.files.update({(*key, name): document.file for name in own})
    add_marks(merged.keys, inner.marks.keys, key, own)
    add_marks(merged.values, inner.marks.values, key, own)
    add_marks(merged.plain, inner.marks.plain, key, own)
    merged.problems += [replace(problem, key=f"{key_text(key)}.{problem.key}") for problem in inner.problems]
    merged.included[key] = inner
    return {**inner.data, **own}


def add_marks(target: dict[KeyPath, Mark], source: Mapping[KeyPath, Mark], key: KeyPath, but: Collection[str]) -> None:
    """Add the marks of an included file, except those of the keys in `but`."""
    target.update({(*key, *path): mark for path, mark in source.items() if not path or path[0] not in but})


def located_file(document: Document, path: Path | None, key: KeyPath, value: Any, name: str = INCLUDE) -> Path:
    """Return the file that a key of a task names.

    Args:
        document: the recipe.
        path: the recipe's file; None for a recipe without a file.
        key: the key path of the task.
        value: the value of the key.
        name: the key.

    Raises:
        RecipeError: the value is not the path of a YAML file in an allowed folder.
    """
    if not isinstance(value, str) or not value:
        raise RecipeError(
            document.problem((*key, name), f"expected the path of a YAML file, got {format_value(value)}")
        )
    if path is None:
        message = "a recipe that is parsed from text cannot include files"
        raise RecipeError(document.problem((*key, name), message, "write the keys of the task in the recipe"))
    shown = format_value(value)
    if not value.endswith(SUFFIXES):
        raise RecipeError(
            document.problem((*key, name), f"{shown} is not a YAML file: expected a name with .yaml or .yml")
        )
    try:
        folder = path.absolute().parent.resolve()
        file = (folder / value).resolve()
        allowed = not Path(value).is_absolute() and file.is_relative_to(folder.parent)
        regular = file.is_file() or not file.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(document.problem((*key, name), f"{shown} cannot be found: {error}")) from None
    if not allowed:
        message = f"{shown} is not allowed: expected a file in the recipe's folder, in its parent folder, or below"
        hint = "move the file there, and write its path relative to the recipe's folder"
        raise RecipeError(document.problem((*key, name), message, hint))
    if not regular:
        raise RecipeError(document.problem((*key, name), f"{shown} is not a file"))
    return file


def _with_text(document: Document, whole: Document, included: Mapping[KeyPath, Document]) -> Document:
    """Return the merged document with a text that gives its data, or with the problem that prevents it."""
    # An item of the text can occur several times in the list, by its alias.
    places = {document.marks.key((*key, INCLUDE)): key for key in included}
    first = min(places.items())[1]
    lines = document.text.split("\n")
    for (line, column), key in sorted(places.items(), reverse=True):
        match = _LINE.fullmatch(lines[line - 1].rstrip("\r"))
        if match is None or len(match["before"]) != column - 1:
            message = "the included file cannot be inserted: `include` shares its line with other text"
            return _with_problem(whole, document.problem((*key, INCLUDE), message, _OWN_LINE))
        lines[line - 1 : line] = _task_lines(document, key, included[key], match["before"])
    text = "\n".join(lines)
    if len(text.encode()) > MAX_FILE_BYTES:
        message = f"the recipe with its included files is larger than {MAX_FILE_BYTES} bytes"
        return _with_problem(whole, document.problem((*first, INCLUDE), message))
    try:
        equal = read_document(text, document.file).data == whole.data
    except RecipeError as error:
        message = f"the included files cannot be inserted into the recipe: {error.problems[0].message}"
        return _with_problem(whole, document.problem((*first, INCLUDE), message))
    if not equal:
        message = "the included files have another meaning inside the recipe"
        hint = "rename anchors, so that no two files use one name"
        return _with_problem(whole, document.problem((*first, INCLUDE), message, hint))
    return replace(whole, text=text)


def _with_problem(document: Document, problem: Problem) -> Document:
    return replace(document, problems=(*document.problems, problem))


def _task_lines(document: Document, key: KeyPath, inner: Document, before: str) -> list[str]:
    """Return the lines that replace the line of an `include`; `before` is the text in front of the key."""
    alone = all(place[: len(key)] != key or place[len(key) :] in {(), (INCLUDE,)} for place in document.marks.keys)
    indent = " " * len(before)
    body = list(body_lines(inner))
    if alone:
        return [before + body[0], *indented(body[1:], indent)]
    return [f"{before}<<:", *indented(body, f"{indent}  ")]


def body_lines(inner: Document) -> Iterator[str]:
    """Yield the lines of an included file, beginning at its first key and without its indentation."""
    line, column = inner.marks.value(())
    for text in inner.text.rstrip().split("\n")[line - 1 :]:
        yield text[column - 1 :].rstrip("\r") if not text[: column - 1].strip() else text.rstrip("\r")


def indented(lines: list[str], indent: str) -> list[str]:
    """Return lines with an indentation; empty lines stay empty."""
    return [indent + line if line else line for line in lines]
