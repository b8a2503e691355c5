"""A recipe that was read and checked, with its text and the positions of its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_recipes.errors import Problem
from merge_recipes.read_yaml import Document, Marks
from merge_recipes.schema import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with its text and the position of every key, in the recipe's file or in a file that it includes."""

    recipe: Recipe
    document: Document
    path: Path
    notes: tuple[Problem, ...] = ()
    """Remarks on keys that have no effect."""
    part: str = ""
    """Which part of the recipe in the file it is, such as "2/8"; empty for the whole."""
    stages: tuple[LoadedRecipe, ...] = ()
    """The other documents of the file that the recipe needs, in the order of their merges."""
    stage: str | None = None
    """The name of the document if it is one of the stages of another."""

    @property
    def text(self) -> str:
        """The text of the recipe, with included tasks inserted."""
        return self.document.text

    @property
    def values(self) -> dict[str, Any]:
        """The keys and values of the recipe; under `stages` those of the documents that it needs, by name."""
        stages = {str(one.stage): one.document.data for one in self.stages}
        return {**self.document.data, **({"stages": stages} if stages else {})}

    @property
    def marks(self) -> Marks:
        """The positions of all keys and values."""
        return self.document.marks

    @property
    def identity(self) -> str:
        """A text that no other recipe has: the path of its file, and which part of it this is."""
        return f"{self.path.absolute()}{f' part {self.part}' if self.part else ''}"

    @property
    def folder(self) -> Path:
        """The folder of the recipe, where relative local paths start."""
        return self.path.parent
