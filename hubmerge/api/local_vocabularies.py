"""Local models of a recipe whose rows belong to other tokens than those of the base model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_recipes import LoadedRecipe

_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "added_tokens.json")


def local_warnings(loaded: LoadedRecipe) -> Iterator[str]:
    """Yield a warning for each local model with as many rows as the base model, and other tokens in them.

    Weights and the Hub are not read: `hubmerge plan` compares all models.
    """
    recipe = loaded.recipe
    if recipe.tokenizer_options is not None or not recipe.base_model.is_local:
        return
    base = Path(recipe.base_model.path)
    expected = _contents(base)
    for entry in recipe.entries if expected else ():
        folder = Path(entry.model.path)
        if not entry.model.is_local or _contents(folder) in ({}, expected):
            continue
        from hubmerge.plan.vocabulary_check import difference_of_folders  # it imports torch

        text = difference_of_folders(base, folder)
        if text is not None:
            yield f"{entry.model}: {text}"


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
