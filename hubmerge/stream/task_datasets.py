"""Commits of the datasets of all tasks, with every failure reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from hubmerge.errors import DatasetError, ErrorCollector, EvaluationError, HubError
from hubmerge.hub.failures import is_missing_repo, is_outage
from hubmerge.stream.located import located
from merge_recipes import DatasetReference, LoadedRecipe
from merge_recipes.errors import KeyPath

Resolve = Callable[[str, str, str | None], str]
"""Function that returns the commit of a kind of repo, a path and a revision."""

TASKS: KeyPath = ("evaluate", "tasks")

Commits = dict[int, tuple[str, ...]]
"""Commits of all repos that each task reads, by the number of the task in the recipe, from 0."""


def resolve_datasets(loaded: LoadedRecipe, resolve: Resolve, collector: ErrorCollector) -> Commits:
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
        with collector.collect():
            commits[index] = tuple(_commits(loaded, index, task.dataset, resolve))
    return commits


def _commits(loaded: LoadedRecipe, index: int, dataset: DatasetReference, resolve: Resolve) -> Iterator[str]:
    """Yield the commit of each repo that a task reads.

    Raises:
        DatasetError: one cannot be resolved.
        HubError: the Hub does not respond.
    """
    for number, source in enumerate(dataset.sources):
        try:
            yield resolve("dataset", source.path, source.revision)
        except HubError as error:
            if is_outage(error):
                raise
            wrong = "revision" if getattr(error, "key", "") == "revision" and source.revision else "path"
            keys = dataset.keys_of(number, wrong)
            missing = is_missing_repo(error)
            hint = "check the spelling; for a private dataset set HF_TOKEN" if missing else error.hint
            failure = DatasetError(error.message, hint=hint, key=wrong, repo=error.context.repo)
            raise located(failure, loaded, (*TASKS, index, "dataset", *keys)) from error


def located_in_dataset(
    error: DatasetError | EvaluationError, loaded: LoadedRecipe, index: int, commits: Mapping[str, str]
) -> DatasetError | EvaluationError:
    """Return an error about rows of a task with its position in the recipe and the commit of its repo.

    Args:
        error: the error, with the repo or the folder that the task reads.
        loaded: the recipe.
        index: the number of the task in the recipe, from 0.
        commits: the commit of each repo and folder that the task reads, by its path.
    """
    assert loaded.recipe.evaluate is not None  # noqa: S101 - it has tasks
    context = error.context
    if context.repo is not None and context.commit is None:
        error.context = replace(context, commit=commits.get(context.repo))
    key = error.key if isinstance(error, DatasetError) else "path"
    keys = loaded.recipe.evaluate.tasks[index].dataset.keys_at(context.repo or context.file, key)
    return located(error, loaded, (*TASKS, index, "dataset", *keys))
