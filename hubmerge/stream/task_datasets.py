"""Commits of the datasets of all tasks, with every failure reported at once."""

from __future__ import annotations

from collections.abc import Callable

from hubmerge.errors import DatasetError, ErrorCollector, HubError
from hubmerge.hub.failures import is_missing_repo, is_outage
from hubmerge.stream.located import located
from merge_recipes import LoadedRecipe
from merge_recipes.errors import KeyPath

TASKS: KeyPath = ("evaluate", "tasks")

Commits = dict[int, str]
"""Commit of the dataset of each task, by the number of the task in the recipe, from 0."""


def resolve_datasets(
    loaded: LoadedRecipe, resolve: Callable[[str, str, str | None], str], collector: ErrorCollector
) -> Commits:
    """Return the commits of the datasets of all tasks, and collect an error for each that cannot be resolved.

    Args:
        loaded: the recipe.
        resolve: returns the commit of a kind of repo, a path and a revision.
        collector: receives the errors, with their lines in the recipe.

    Raises:
        HubError: the Hub does not respond.
    """
    commits: Commits = {}
    for index, task in enumerate(loaded.recipe.evaluate.tasks if loaded.recipe.evaluate is not None else ()):
        source = task.dataset
        with collector.collect():
            try:
                commits[index] = resolve("dataset", source.path, source.revision)
            except HubError as error:
                if is_outage(error):
                    raise
                key = "revision" if getattr(error, "key", "") == "revision" and source.revision else "path"
                missing = is_missing_repo(error)
                hint = "check the spelling; for a private dataset set HF_TOKEN" if missing else error.hint
                failure = DatasetError(error.message, hint=hint, key=key, repo=error.context.repo)
                raise located(failure, loaded, (*TASKS, index, "dataset", key)) from error
    return commits
