"""Published step with its report, recipe and lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from hubmerge.errors import HubError, HubmergeError
from hubmerge.hub.offline import is_offline
from hubmerge.hub.published import PublishedStep, read_published_step, read_small_file, read_step_folder
from hubmerge.report.history import ReadHistory, completed
from hubmerge.report.report import RunReport
from hubmerge.stream.expansion import expand
from hubmerge.stream.joint_steps import joint_steps
from hubmerge.stream.stages import read_locked_stages
from hubmerge.stream.stream import Stream
from hubmerge.stream.task_steps import first_steps
from hubmerge.support.names import LOCK_FILE, RECIPE_FILE, REPORT_FILE, history_file
from hubmerge.support.text import listed
from merge_recipes import LoadedRecipe, Lock, RecipeError, chain_digests, parse_recipe

DOWNLOADS = 8
"""Number of small files that are downloaded at once."""

NO_STREAM = "recipe and lock do not fit together"
"""What is wrong with a published step whose stream is None."""


@dataclass(frozen=True)
class Published:
    """A published step and its report.

    Attributes:
        files: the files of the step.
        report: its report, with every step whole unless there is a problem.
        sealed: the report as it was read.
        history_problem: why the report could not be completed from the files in `history/`, None if it could.
    """

    files: PublishedStep
    report: RunReport
    sealed: RunReport
    history_problem: str | None = None

    @property
    def repo(self) -> str:
        """Name of the repo."""
        return self.files.repo

    @property
    def step(self) -> int:
        """Number of the step."""
        return self.report.steps[-1].step

    def state_digest(self, step: int) -> str | None:
        """Return the digest of the state after a step, None if the report has none."""
        return self.report.steps[step - 1].state_digest

    def recipe(self) -> LoadedRecipe:
        """Return the published recipe.

        Raises:
            RecipeError: it is not a valid recipe.
        """
        return parse_recipe(self.files.metadata_files[RECIPE_FILE], path=f"{self.repo}/{RECIPE_FILE}")

    def lock(self) -> Lock:
        """Return the published lock.

        Raises:
            LockError: it is not a valid lock.
        """
        return Lock.from_yaml(self.files.metadata_files[LOCK_FILE], file=f"{self.repo}/{LOCK_FILE}")

    @cached_property
    def stream(self) -> Stream | None:
        """Stream up to this step, from the published recipe and lock alone; None if they do not fit together."""
        try:
            loaded, lock = self.recipe(), self.lock()
        except RecipeError:
            return None
        try:
            entries = expand(loaded.recipe, lock.models, len(lock.models), lambda _: (), None).entries
        except HubmergeError:
            return None
        count = len(self.report.models)
        if [entry.name for entry in entries] != [model.name for model in lock.models] or len(entries) < count:
            return None
        try:
            stages = read_locked_stages(loaded, lock)
        except RecipeError:
            return None
        if self.report.is_joint:
            recipe = loaded.recipe.with_stream(entries)
            chain, inputs = joint_steps(recipe, lock, self.report)
            return Stream(replace(loaded, recipe=recipe), lock, chain, None, inputs=inputs, stages=stages)
        recipe = loaded.recipe.with_stream(entries[: self.step])
        if recipe.evaluate is not None:
            first = first_steps(Stream(replace(loaded, recipe=loaded.recipe.with_stream(entries)), lock, (), None))
            tasks = tuple(task for task in recipe.evaluate.tasks if first[task.name] <= self.step)
            recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"tasks": tasks})})
        loaded = replace(loaded, recipe=recipe)
        lock = lock.model_copy(update={"models": lock.models[: self.step]})
        return Stream(loaded, lock, chain_digests(recipe, lock), None, stages=stages)

    def checked_stream(self) -> Stream:
        """Return the stream up to this step.

        Raises:
            HubError: recipe and lock do not fit together.
        """
        if self.stream is None:
            raise HubError(
                f"{self.repo}: {NO_STREAM}",
                hint=f"run `hubmerge verify {self.repo}`",
                repo=self.repo if self.files.folder is None else None,
            )
        return self.stream

    @property
    def expected_tasks(self) -> frozenset[str]:
        """Names of the tasks that the recipe scores up to this step."""
        tasks = self.stream.recipe.scored_tasks if self.stream is not None else ()
        return frozenset(task.name for task in tasks)


@dataclass(frozen=True)
class UnreadableReport:
    """A published step whose report cannot be read, and the cause."""

    files: PublishedStep
    cause: str


def open_published(place: str | Path, revision: str | None) -> Published:
    """Return a published step whose report can be read.

    Args:
        place: owner/name, or the folder of a step.
        revision: a tag such as step-03, a branch or a commit; None for main.

    Raises:
        HubError: the repo or the revision is missing, hubmerge did not publish it, or its report is damaged.
        MachineError: the folder is not that of a step.
    """
    found = read_published(place, revision)
    if isinstance(found, UnreadableReport):
        repo = place if isinstance(place, str) else None
        raise HubError(f"{place}: {found.cause}", hint=f"run `hubmerge verify {place}`", repo=repo)
    return found


def read_published(repo: str | Path, revision: str | None) -> Published | UnreadableReport:
    """Read a published step and its report from the Hub or from a folder.

    Args:
        repo: owner/name, or the folder of a step.
        revision: a tag such as step-03, a branch or a commit; None for main.

    Raises:
        HubError: the repo or the revision is missing, or hubmerge did not publish it; or files are missing offline.
        MachineError: the folder is not that of a step.
    """
    files = read_step_folder(repo) if isinstance(repo, Path) else read_published_step(repo, revision)
    try:
        report = RunReport.from_json(files.metadata_files[REPORT_FILE])
    except HubmergeError as error:
        return UnreadableReport(files, error.message)
    if not report.steps:
        return UnreadableReport(files, f"{REPORT_FILE} contains no step")
    _check_cached(files, report)
    try:
        return Published(files, completed(report, _history_reader(files, report)), report)
    except HubError:
        raise
    except HubmergeError as error:
        return Published(files, report, report, error.message)


def _check_cached(files: PublishedStep, report: RunReport) -> None:
    """Check that the Hub cache has every file of the report, if it is all that can be read.

    Raises:
        HubError: a file is missing, which may be in the repo.
    """
    missing = sorted({*report.all_files, *report.history_files} - set(files.files))
    if files.folder is None and is_offline() and missing:
        raise HubError(
            f"{files.repo} at {files.commit}: HF_HUB_OFFLINE is set, and the Hub cache lacks {listed(missing)}",
            hint=f"HF_HUB_OFFLINE=0 hf download {files.repo} --revision {files.commit}",
            repo=files.repo,
            commit=files.commit,
            file=missing[0],
        )


def _history_reader(files: PublishedStep, report: RunReport) -> ReadHistory:
    """Return a function that reads the whole reports of the steps, which are downloaded at once."""
    names = [name for name in report.history_files if name in files.files]
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        contents = dict(zip(names, pool.map(partial(read_small_file, files), names), strict=True))
    return lambda step: contents.get(history_file(step))
