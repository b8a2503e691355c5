"""Remarks on repos of the Hub that have the name of a folder on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from merge_recipes.errors import KeyPath, Problem, format_value
from merge_recipes.read_yaml import Document
from merge_recipes.references import ModelReference
from merge_recipes.rules import mapping_at, raw_entries, reference_in


def folder_notes(document: Document, folder: Path) -> Iterator[Problem]:
    """Yield a remark for each repo whose name is that of a folder beside the recipe or in the working folder.

    Args:
        document: the document of the recipe.
        folder: the folder of the recipe, where relative paths start.
    """
    seen: set[str] = set()
    for path, reference in _references(document):
        for one in (reference, reference.adapter):
            name = "" if one is None or one.is_local else "/".join(filter(None, (one.path, one.subfolder)))
            if not name or name in seen:
                continue
            seen.add(name)
            found = _folder_of(name, folder)
            if found is not None:
                where, written = found
                message = (
                    f"{format_value(name)} is a repo on the Hub here; mergekit takes the folder of that name {where}"
                )
                yield document.problem(path, message, f"write {written} for the folder")


def _references(document: Document) -> Iterator[tuple[KeyPath, ModelReference]]:
    data = mapping_at(document)
    places: list[tuple[KeyPath, object]] = [(("base_model",), data.get("base_model"))]
    places += [((*entry.path, "model"), entry.data.get("model")) for entry in raw_entries(document)]
    places += [(("tokenizer_source",), data.get("tokenizer_source"))]
    places += [(("tokenizer", "source"), mapping_at(document, "tokenizer").get("source"))]
    for path, value in places:
        reference = reference_in(value)
        if reference is not None:
            yield path, reference


def _folder_of(name: str, folder: Path) -> tuple[str, str] | None:
    """Return where a folder of this name is, and how the recipe names it; None if there is none."""
    if (folder / name).is_dir():
        return "beside the recipe", f"./{name}"
    if not Path(name).is_dir():
        return None
    try:
        relative = Path(os.path.relpath(name, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return "in the working folder", Path(name).absolute().as_posix()
    return "in the working folder", relative if relative.startswith("../") else f"./{relative}"
