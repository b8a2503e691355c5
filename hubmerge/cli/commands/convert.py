"""`hubmerge convert`."""

from __future__ import annotations

from hubmerge.api import recipes
from hubmerge.cli.options import Recipe


def convert(recipe: Recipe) -> int:
    """Print what a recipe means: all defaults filled in, base model, layers, tokenizer and dtypes."""
    print(recipes.convert(recipe), end="")
    return 0
