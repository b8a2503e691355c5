"""Checks before a merge: the tasks, the permission to publish and the files of the target repo, all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hubmerge.errors import ErrorCollector, HubError
from hubmerge.hub.client import has_token
from hubmerge.hub.failures import is_outage
from hubmerge.hub.offline import is_offline
from hubmerge.hub.permission import check_permission
from hubmerge.plan.card_check import check_card
from hubmerge.plan.checked_task import CheckedTask
from hubmerge.plan.licenses import NO_LICENSES, PlannedLicenses
from hubmerge.plan.target_files import TargetFiles, check_target_files
from hubmerge.plan.task_checks import check_tasks
from hubmerge.plan.visibility import visibility_warnings
from hubmerge.report.report import RunReport
from hubmerge.stream.located import located
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.resolution import resolve_stream
from hubmerge.stream.stream import Stream
from hubmerge.stream.task_datasets import Commits
from hubmerge.support.progress import Progress
from merge_recipes import LoadedRecipe


@dataclass(frozen=True)
class Preflight:
    """What the checks found.

    Attributes:
        kept: the files of the target repo that a run may replace, and its card.
        tasks: the tasks with their datasets.
        licenses: the licenses of the inputs and of the merged model.
        warnings: inputs that fewer people can read than the merged model.
    """

    kept: TargetFiles
    tasks: tuple[CheckedTask, ...] = ()
    licenses: PlannedLicenses = NO_LICENSES
    warnings: tuple[str, ...] = ()

    @property
    def warning_lines(self) -> tuple[str, ...]:
        """Warnings, also of changes in the card that the next step replaces, as a command that merges prints them."""
        return tuple(f"warning: {text}" for text in (*self.warnings, *self.kept.notes))


def resolve_checked(
    loaded: LoadedRecipe, pinned: PinnedCommits, *, replay: bool = False, hash_folders: bool = False
) -> Stream:
    """Resolve a recipe; if a dataset cannot be resolved, raise this with all other mistakes of the tasks.

    Args and errors are those of `resolve_stream`.
    """
    return resolve_stream(loaded, pinned, replay=replay, hash_folders=hash_folders, check_tasks=_check_others)


def _check_others(loaded: LoadedRecipe, commits: Commits, collector: ErrorCollector) -> None:
    check_tasks(loaded, commits, collector)


def check_before_merge(
    stream: Stream,
    progress: Progress,
    plan: Callable[[], object],
    read_licenses: Callable[[], PlannedLicenses] = lambda: NO_LICENSES,
    *,
    recorded: RunReport | None = None,
    needs_token: bool,
) -> Preflight:
    """Check the tasks, the permission to publish, the target's files and the licenses; raise all mistakes at once.

    Args:
        stream: The stream.
        progress: Receiver of stages.
        plan: Function that plans the merge. It is called if there are mistakes, to report its error with them.
        read_licenses: Function that reads the licenses and checks that they go together.
        recorded: Report of the steps that are published or on disk.
        needs_token: True for a run. A plan checks the permission only if there is a token.

    Raises:
        HubmergeError: There is one mistake, or a `CombinedError` of several.
    """
    collector, kept, licenses = ErrorCollector(is_outage), TargetFiles(), NO_LICENSES
    with progress.stage("read licenses"), collector.collect():
        licenses = read_licenses()
    with progress.stage("check tasks and target"):
        with collector.collect():
            _check_permission(stream, needs_token=needs_token)
        with collector.collect():
            kept = check_target_files(stream)
        with collector.collect():
            check_card(stream, licenses, kept)
        commits = dict(enumerate(_dataset_commits(stream)))
        done = () if recorded is None else recorded.tasks
        tasks = check_tasks(stream.loaded, commits, collector, stream=stream, recorded=done)
    if collector.errors:
        with collector.collect():
            plan()
    collector.check()
    return Preflight(kept, tasks, licenses, _compare_visibility(stream, licenses, progress))


def _compare_visibility(stream: Stream, licenses: PlannedLicenses, progress: Progress) -> tuple[str, ...]:
    with progress.stage("compare visibility"):
        return visibility_warnings(stream, licenses.inputs)


def _check_permission(stream: Stream, *, needs_token: bool) -> None:
    publish, target = stream.recipe.publish, stream.target
    if publish is None or is_offline() or not (needs_token or has_token()):
        return
    try:
        check_permission(publish.repo, exists=target is not None and target.head is not None)
    except HubError as error:
        if is_outage(error):
            raise
        raise located(error, stream.loaded, ("publish", "repo")) from error


def _dataset_commits(stream: Stream) -> list[tuple[str, ...]]:
    evaluate = stream.recipe.evaluate
    return [stream.lock.commits_of(task.dataset) for task in (evaluate.tasks if evaluate is not None else ())]
