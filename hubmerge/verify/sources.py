"""Check of what a recomputation reads from the Hub cache: files of sources, data sets and the published step."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.hub.checked_files import Kind, check_cached_files
from hubmerge.stream.open_source import fetched_sources
from hubmerge.stream.sources import Source, fetch_folder
from hubmerge.stream.stream import Stream
from hubmerge.support.progress import Progress
from merge_recipes.references import is_commit


def fetch_checked(source: Source, progress: Progress) -> None:
    """Fetch the files of a source and its adapter, and compare each with the digest that the Hub lists.

    A local folder is compared with the digest in the lock.

    Raises:
        HubError: a file is damaged after it was fetched again, or the Hub does not respond.
        CheckpointError: a local folder changed.
    """
    for part in fetched_sources(source):
        if not part.is_local:
            _check("model", part.reference.path, part.commit, progress)
        fetch_folder(part, auxiliary=part == source.base)


def check_datasets(stream: Stream, progress: Progress) -> None:
    """Compare the cached files of the data sets with the digests that the Hub lists; the errors are those above."""
    for path, commit in sorted(set(_datasets(stream))):
        _check("dataset", path, commit, progress)


def check_published(repo: str, commit: str, progress: Progress) -> None:
    """Compare the cached files of a published step with the digests that the Hub lists."""
    _check("model", repo, commit, progress)


def _datasets(stream: Stream) -> Iterator[tuple[str, str]]:
    evaluate = stream.recipe.evaluate
    for task in evaluate.tasks if evaluate is not None else ():
        for data, commit in zip(task.dataset.sources, stream.lock.commits_of(task.dataset), strict=True):
            if not data.is_local and is_commit(commit):
                yield data.path, commit


def _check(kind: Kind, repo: str, commit: str, progress: Progress) -> None:
    for name in check_cached_files(kind, repo, commit):
        progress.note(f"{name} of {kind} {repo} was damaged in the Hub cache: fetched again")
