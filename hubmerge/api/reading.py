"""Merged models that other methods read out of published states."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.api.progress import ProgressOption, open_progress
from hubmerge.api.recipes import load
from hubmerge.errors import UsageError
from hubmerge.support import interrupts
from hubmerge.support.paths import user_cache_folder

if TYPE_CHECKING:
    from hubmerge.verify.published import Published
    from merge_recipes.reading import Read, Reading


def read(
    published: str,
    method: str | None = None,
    *,
    out: str | os.PathLike[str],
    parameters: Mapping[str, Any] | None = None,
    choice: Mapping[str, Any] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    progress: ProgressOption = "auto",
) -> Path:
    """Write the merged model that another method reads out of a published state; no checkpoint is downloaded.

    Args:
        published: the repo, with the step as revision unless it is the newest: `owner/name@step-03`; or a folder that
            `hubmerge run --out DIR --state` wrote.
        method: a method that reads the states of the one that merged the stream.
        out: the folder to write, which must be new or empty, or a merged model that is replaced.
        parameters: parameters of the method.
        choice: in place of a method, the value of `read` in a recipe: `choose` has several methods with their
            parameters, and `on` names the task of the published recipe on which the best of them is found.
        work_dir: folder for the state; in the user's cache folder by default.
        progress: see `hubmerge.run`.

    Returns:
        The folder `out`.

    Raises:
        UsageError: the method cannot read the state, or neither a method nor a choice is given.
        RecipeError: a parameter, the task or the metric is wrong.
        HubError: the repo cannot be read, or has no state for this step.

    Example:
        hubmerge.read("me/merged", "iso_c", parameters={"scaling": 1.2}, out="iso")
    """
    _check_usage(method, parameters, choice)
    checked = None if method is None else _reading(method, parameters)
    folder = Path(out)
    found = _open(published, folder)
    work = user_cache_folder("runs") if work_dir is None else Path(work_dir)
    return _write(found, checked or _choice(found, choice or {}), folder, work, progress)


def _check_usage(method: str | None, parameters: Mapping[str, Any] | None, choice: Mapping[str, Any] | None) -> None:
    if (method is None) == (choice is None) or (parameters and method is None):
        raise UsageError(
            "expected either a method, perhaps with parameters, or several to choose from",
            hint="add `--method NAME`, or `--choose NAME --choose 'NAME PARAMETER=VALUE' --on TASK`",
        )


def _open(published: str, folder: Path) -> Published:
    """Return a published step after checking that the folder can be written."""
    from hubmerge.api.places import place_of
    from hubmerge.run.output_folder import OutputFolder
    from hubmerge.verify.published import open_published

    place = place_of(published)
    OutputFolder(folder).check()
    return open_published(*place)


def _reading(method: str, parameters: Mapping[str, Any] | None) -> Reading:
    """Return a method with its parameters, checked."""
    from hubmerge.api.merging import recipe_keys
    from merge_recipes.reading import Reading

    checked = load(recipe_keys("me/base", ["me/model"], method, parameters)).recipe.parameters
    return Reading(method=method, parameters=checked)


def _choice(published: Published, choice: Mapping[str, Any]) -> Read:
    """Return a choice, checked against the recipe of a published step."""
    keys = published.checked_stream().recipe.model_dump(mode="json", exclude_defaults=True, exclude={"read"})
    for task in keys.get("evaluate", {}).get("tasks", ()):
        task.pop("validation", None)
    keys["read"] = dict(choice)
    read = load(keys).recipe.read
    assert read is not None  # noqa: S101 - the keys have it
    return read


def _write(published: Published, read: Reading | Read, folder: Path, work: Path, progress: ProgressOption) -> Path:
    """Write the model that is read out of the state, which lies in a temporary folder meanwhile; return it."""
    from hubmerge.verify.read_state import read_published_state

    work.mkdir(parents=True, exist_ok=True)
    with interrupts.handled(), tempfile.TemporaryDirectory(prefix="read-", dir=work) as own:
        read_published_state(published, read, folder, Path(own), open_progress(progress))
    return folder
