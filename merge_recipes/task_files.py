"""What tasks of the kind lm-eval leave to other files: their definitions and their datasets.

The keys of a file beside the recipe (`task: ./my_task.yaml`) are inserted in place of its name. The dataset of a task
that comes with lm-evaluation-harness is inserted below its name. So the text of the recipe needs no other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from merge_recipes.errors import HubmergeError, KeyPath, RecipeError, format_value, key_text
from merge_recipes.include import Inclusion, add_marks, body_lines, indented, located_file
from merge_recipes.language_task import DEFINITION_SUFFIXES, HARNESS_KIND, with_dataset
from merge_recipes.read_yaml import MAX_FILE_BYTES, Document, Marks, read_document, read_text
from merge_recipes.rules import items_at

KEY = "task"

_LINE = re.compile(r"(?P<before>(?: |- )*)task:[ \t]+(?P<value>\S.*)")


@runtime_checkable
class TaskCatalog(Protocol):
    """A catalog that knows the datasets of installed tasks."""

    def task_dataset(self, name: str) -> dict[str, Any]:
        """Return the keys of the dataset of a task of lm-evaluation-harness, as a recipe has them.

        Raises:
            HubmergeError: there is no such task, or its data cannot be pinned.
        """
        ...


def insert_definitions(inclusion: Inclusion, path: Path | None, catalog: object = None) -> Inclusion:
    """Return a recipe's document with the keys of every task that is defined in a file of its own.

    Args:
        inclusion: the recipe, with included tasks. Mistakes in the files are added to its problems.
        path: the recipe's file; None for a recipe without a file, which has no files beside it.
        catalog: what is installed; if it is a `TaskCatalog`, datasets of tasks without one are inserted.
    """
    document, unread = inclusion.document, list(inclusion.unread)
    for key, item in [*items_at(document, "evaluate", "tasks")][::-1]:  # a file moves the lines after it
        if item.get("kind") == HARNESS_KIND and isinstance(item.get(KEY), str):
            try:
                if _is_file(item[KEY]):
                    document = _inserted(document, path, key, item[KEY])
                elif isinstance(catalog, TaskCatalog) and "dataset" not in item:
                    document = _with_named_dataset(document, key, item[KEY], catalog)
            except RecipeError as error:
                document = replace(document, problems=(*document.problems, *error.problems))
                unread += [(*key, KEY), (*key, "dataset")]
    return Inclusion(_with_datasets(document), tuple(unread))


def _with_datasets(document: Document) -> Document:
    """Return the document in which each task of the harness has the dataset and the limit that its keys imply."""
    places = [int(key[2]) for key, item in items_at(document, "evaluate", "tasks") if item.get("kind") == HARNESS_KIND]
    if not places:
        return document
    tasks = list(document.data["evaluate"]["tasks"])
    for place in places:
        tasks[place] = with_dataset(tasks[place])
    return replace(document, data={**document.data, "evaluate": {**document.data["evaluate"], "tasks": tasks}})


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.endswith(DEFINITION_SUFFIXES)


def _inserted(document: Document, path: Path | None, key: KeyPath, name: str) -> Document:
    """Return the document with the keys of one file.

    Raises:
        RecipeError: the file is missing or not the definition of a task, or its keys cannot be inserted.
    """
    place = (*key, KEY)
    if document.file_of(place) != document.file:
        message = "an included file cannot name another file"
        raise RecipeError(document.problem(place, message, "write the keys of the definition under `task:`"))
    file = located_file(document, path, key, name, KEY)
    label = str(Path(document.file).parent / name)
    try:
        inner = read_document(read_text(file), label)
    except RecipeError as error:
        problem = error.problems[0]
        if problem.line is not None:
            raise
        raise RecipeError(document.problem(place, f"{name}: {problem.message}")) from None
    if not isinstance(inner.data, dict):
        raise RecipeError(inner.problem((), f"expected the keys of a task, got {format_value(inner.data)}"))
    if inner.problems:
        raise RecipeError([replace(one, key=f"{key_text(place)}.{one.key}") for one in inner.problems])
    return replace(_with_values(document, place, inner), text=_text(document, key, inner))


def _with_values(document: Document, place: KeyPath, inner: Document) -> Document:
    """Return the document with the values of a definition, which keep their positions in its file."""
    tasks = list(document.data["evaluate"]["tasks"])
    tasks[int(place[2])] = {**tasks[int(place[2])], KEY: inner.data}
    marks, keys = document.marks, dict(document.marks.keys)
    values, plain = dict(marks.values), {at: text for at, text in marks.plain.items() if at != place}
    for target, source in ((keys, inner.marks.keys), (values, inner.marks.values)):
        add_marks(target, {at: mark for at, mark in source.items() if at}, place, ())
    add_marks(plain, inner.marks.plain, place, ())
    names: Mapping[str, Any] = inner.data
    files = {**document.files, **{(*place, name): inner.file for name in names}}
    data = {**document.data, "evaluate": {**document.data["evaluate"], "tasks": tasks}}
    return replace(document, data=data, marks=Marks(keys, values, plain), files=files)


def _text(document: Document, key: KeyPath, inner: Document) -> str:
    """Return the text of the recipe with the lines of a definition in place of its name.

    Raises:
        RecipeError: the line of the name has other text, or the lines would have another meaning there.
    """
    place = (*key, KEY)
    expected = _with_values(document, place, inner).data
    rows, lines = _rows(document, str(document.data["evaluate"]["tasks"][int(key[2])][KEY])), document.text.split("\n")
    for row, before in rows:
        body = indented(list(body_lines(inner)), " " * (len(before) + 2))
        text = "\n".join([*lines[:row], f"{before}task:", *body, *lines[row + 1 :]])
        if len(text.encode()) > MAX_FILE_BYTES:
            message = f"the recipe with its files is larger than {MAX_FILE_BYTES} bytes"
            raise RecipeError(document.problem(place, message))
        with suppress(RecipeError):
            if read_document(text, document.file).data == expected:
                return text
    if not rows:
        message = "the definition cannot be inserted: `task` shares its line with other text"
        raise RecipeError(document.problem(place, message, "write `task: FILE` on a line of its own"))
    message = "the definition has another meaning inside the recipe"
    raise RecipeError(document.problem(place, message, "write the keys of the definition under `task:`"))


def _with_named_dataset(document: Document, key: KeyPath, name: str, catalog: TaskCatalog) -> Document:
    """Return the document with the dataset of an installed task.

    Raises:
        RecipeError: there is no such task, or the dataset cannot be inserted.
    """
    try:
        source = catalog.task_dataset(name)
    except HubmergeError as error:
        raise RecipeError(document.problem((*key, KEY), error.message, error.hint)) from None
    tasks = list(document.data["evaluate"]["tasks"])
    tasks[int(key[2])] = {**tasks[int(key[2])], "dataset": source}
    data = {**document.data, "evaluate": {**document.data["evaluate"], "tasks": tasks}}
    written = ", ".join(f"{word}: {json.dumps(value, ensure_ascii=False)}" for word, value in source.items())
    lines = document.text.split("\n")
    for row, before in _rows(document, name):
        text = "\n".join([*lines[: row + 1], f"{' ' * len(before)}dataset: {{{written}}}", *lines[row + 1 :]])
        with suppress(RecipeError):
            if read_document(text, document.file).data == data:
                return replace(document, data=data, text=text)
    message = "this key is required: the dataset that the task reads"
    raise RecipeError(document.problem((*key, "dataset"), message, f"write `dataset: {{{written}}}`"))


def _rows(document: Document, name: str) -> list[tuple[int, str]]:
    """Return the lines that name a file, each with the text in front of the key."""
    matches = ((row, _LINE.fullmatch(line.rstrip("\r"))) for row, line in enumerate(document.text.split("\n")))
    return [(row, match["before"]) for row, match in matches if match is not None and name in match["value"]]
