"""A recipe that was read and checked, with its text and the positions of its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from merge_recipes.read_yaml import Document, Marks
from merge_recipes.schema import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with the text that it was read from and the place of every key in it, or in a file that it includes."""

    recipe: Recipe
    document: Document
    path: Path

    @property
    def text(self) -> str:
        """The recipe's text as written, with the tasks that it includes written in."""
        return self.document.text

    @property
    def marks(self) -> Marks:
        """Where every key and value stands."""
        return self.document.marks

    @property
    def folder(self) -> Path:
        """The folder that relative local paths start from."""
        return self.path.parent
