"""Recipes for people who have models and no recipe yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hubmerge.errors import MachineError
from hubmerge.support import interrupts


def propose(
    base: str,
    models: Sequence[str],
    *,
    out: str | os.PathLike[str] = "recipe.yaml",
    method: str | None = None,
    publish: str | None = None,
    force: bool = False,
) -> Path:
    """Write a recipe with comments for models that you want to merge. Cards are read, weights are not.

    Args:
        base: the base model: a repo, `owner/name[@revision]`, or a local folder that starts with ./, ../, / or ~.
        models: checkpoints in merge order, as repos, folders, queries such as `me/clip-*`, or slugs of collections.
        out: the file to write.
        method: the merge method; by default one is chosen, with the reason in a comment.
        publish: the target repo; by default a comment shows how to publish.
        force: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        RecipeError: a reference, the method or the target is not valid.
        MachineError: the file exists, or cannot be written.
        HubError: the Hub does not respond.

    Example:
        hubmerge.propose("openai/clip-vit-base-patch32", ["me/cats", "me/dogs"], out="recipe.yaml")
    """
    from hubmerge.support.files import write_output

    path = Path(out)
    if not force:
        _check_new(path)
    write_output(path, _checked_proposal(base, models, path, method, publish))
    return path


def _checked_proposal(base: str, models: Sequence[str], path: Path, method: str | None, publish: str | None) -> str:
    """Return the text of a recipe for models, which is valid."""
    from hubmerge.stream.catalog import installed_catalog
    from hubmerge.stream.proposal import proposed_recipe
    from merge_recipes import parse_recipe

    with interrupts.handled():
        text = proposed_recipe(base, models, file=path.name, method=method, publish=publish)
    parse_recipe(text, path=str(path), catalog=installed_catalog())
    return text


def _check_new(path: Path) -> None:
    if path.exists():
        raise MachineError(f"{path} exists", hint="choose another file with --out, or add --force", file=str(path))
