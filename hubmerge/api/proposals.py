"""Recipes for people who have models and no recipe yet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hubmerge.errors import RecipeError, UsageError
from hubmerge.support import interrupts


def propose(
    base: str | None,
    models: Sequence[str] = (),
    *,
    search: str | None = None,
    out: str | os.PathLike[str] = "recipe.yaml",
    method: str | None = None,
    publish: str | None = None,
    force: bool = False,
) -> Path:
    """Write a recipe with comments for models that you want to merge. Cards are read, weights are not.

    Args:
        base: the base model: a repo, `owner/name[@revision]`, or a folder that starts with ./, ../, / or ~; None with
            `search` for the one that most of the found models name.
        models: checkpoints in merge order, as repos, folders, queries such as `me/clip-*`, or slugs of collections.
        search: words in names on the Hub; at most 32 of these models are added, those whose cards name the base model.
        out: the file to write.
        method: the merge method; by default one is chosen, with the reason in a comment.
        publish: the target repo; by default a comment shows how to publish.
        force: replace an existing file.

    Returns:
        The path of the file.

    Raises:
        RecipeError: a reference, the method or the target is not valid.
        UsageError: there is no base model or no checkpoint, the search has no words, or the file exists.
        MachineError: the file cannot be written.
        HubError: the search finds no checkpoint of the base model, or the Hub does not respond.

    Example:
        hubmerge.propose("openai/clip-vit-base-patch32", ["me/cats", "me/dogs"], out="recipe.yaml")
    """
    from hubmerge.support.files import write_output

    path = Path(out)
    _check_new(path, force=force)
    write_output(path, _checked_proposal(*_with_found(search, base, models), path, method, publish))
    return path


def _with_found(search: str | None, base: str | None, models: Sequence[str]) -> tuple[str, Sequence[str], str | None]:
    """Return the base model, the checkpoints with those that a search finds, and a comment on them."""
    if search is not None:
        return _searched(search, base, models)
    if base is None or not models:
        raise UsageError("a base model and at least one checkpoint are needed", hint="name them, or search for them")
    return base, models, None


def _searched(search: str, base: str | None, models: Sequence[str]) -> tuple[str, Sequence[str], str]:
    from hubmerge.stream.model_search import find_checkpoints

    words = " ".join(search.split())
    if not words:
        raise UsageError("the search has no words", hint="search for example for 'clip vit base patch32'")
    with interrupts.handled():
        found = find_checkpoints(words, base)
    more = f", with {found.left_out} more that are downloaded less" if found.left_out else ""
    remark = f"found by the search for {words!r}{more}; remove what you do not want"
    return found.base, list(dict.fromkeys([*models, *found.models])), remark


def _checked_proposal(
    base: str, models: Sequence[str], remark: str | None, path: Path, method: str | None, publish: str | None
) -> str:
    """Return the text of a recipe for models, which is valid."""
    from hubmerge.stream.catalog import installed_catalog
    from hubmerge.stream.proposal import proposed_recipe
    from merge_recipes import parse_recipe

    with interrupts.handled():
        text = proposed_recipe(base, models, file=path.name, method=method, publish=publish, remark=remark)
    try:
        parse_recipe(text, path=str(path), catalog=installed_catalog())
    except RecipeError as error:
        # The file is not written, so that its lines say nothing.
        raise RecipeError([replace(one, file=None, line=None, column=None) for one in error.problems]) from error
    return text


def _check_new(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="choose another file with --out, or add --force", file=str(path))
