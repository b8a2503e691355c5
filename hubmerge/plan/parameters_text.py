"""The settings of a merge, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hubmerge.methods import method_of
from merge_recipes import Recipe
from merge_recipes.mergekit import UNUSED


def parameters_text(recipe: Recipe) -> dict[str, str]:
    """Return the parameters of a merge with their values, those that are not given with their defaults.

    Returns:
        Values by name. A value that differs between layers or entries is "by layer" or "by entry".
    """
    found = {}
    own = [entry.parameters for entry in (recipe.stream() if not recipe.slices else ())]
    for name, default in _defaults(recipe):
        value = recipe.parameters.get(name, default)
        text = "by layer" if isinstance(value, (list, tuple, Mapping)) else str(value).lower()
        if recipe.slices:
            text = "by slice" if any(_sets(piece, name) for piece in recipe.slices) else text
        if any(name in parameters for parameters in own):
            text = "by entry"
        if text != "none":
            found[name] = text
    for name in ("dtype", "out_dtype"):
        if (chosen := getattr(recipe, name)) is not None:
            found[name] = chosen
    return found


def _sets(piece: Any, name: str) -> bool:
    return name in piece.parameters or any(name in source.parameters for source in piece.sources)


def _defaults(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Yield the names of the parameters under which a recipe gives them, with the defaults."""
    for name, field in method_of(recipe).Parameters.model_fields.items():
        shown = field.alias or name
        if shown != UNUSED:
            yield shown, field.get_default(call_default_factory=True) if not field.is_required() else "not given"
