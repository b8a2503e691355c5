"""Digest of everything that decides the scores of a task and is not in the model, collected while it is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubmerge.evaluation.registry import TASK_KIND_NAMES
from hubmerge.evaluation.score_inputs import digest_of, environment, rows_digest
from hubmerge.report.inputs import DataReport
from hubmerge.report.licenses import License
from merge_recipes import DatasetReference, Task

if TYPE_CHECKING:
    import datasets
    import evaluate


def data_report(
    dataset: DatasetReference, source: DatasetReference, commit: str, licenses: tuple[License, ...] = ()
) -> DataReport:
    """Return the report of a source of a dataset; only those of a group score splits of their own."""
    if not dataset.more:
        return DataReport(source.written_path, commit, licenses)
    return DataReport(source.written_path, commit, licenses, source.name, source.split)


class TaskInputs:
    """Reader of the rows and metrics of one task, which remembers what it has read."""

    def __init__(self, task: Task, commits: Sequence[str], cache: Path | None, *, digests: bool) -> None:
        """Prepare to read.

        Args:
            task: The task.
            commits: The commits of all repos that it reads, in the order of `task.dataset.sources`.
            cache: Folder for the rows, None for that of the datasets library.
            digests: True to compute digests of the rows.
        """
        from hubmerge.hub.datasets import load_rows  # only tasks need what it imports

        self._task, self._commit = task, "+".join(commits)
        sources = zip(task.dataset.sources, commits, strict=True)
        self._commits = {(source.path, source.revision): commit for source, commit in sources}
        self._load = partial(load_rows, cache=cache)
        # The code of a plug-in or of a metric on the Hub may change without another version.
        self._is_known = digests and task.kind in TASK_KIND_NAMES
        self._rows: list[Any] = []

    def read(self, dataset: DatasetReference) -> datasets.Dataset:
        """Return the rows of a split."""
        rows = self._load(dataset, self._commits[dataset.path, dataset.revision])
        if self._is_known:
            self._rows.append([dataset.name, dataset.split, rows_digest(rows)])
        return rows

    def load_metric(self, name: str, folder: Path) -> evaluate.Metric:
        """Return a metric that is not part of this package; scores of the task are then not cached."""
        from hubmerge.hub.datasets import load_metric  # only tasks need what it imports

        self._is_known = False
        return load_metric(name, folder)

    def digest(self, batch_size: int, device: str) -> str | None:
        """Return the digest, None if some of the inputs are not known.

        Args:
            batch_size: The number of examples in one forward pass.
            device: The torch device of the models.
        """
        if not self._is_known:
            return None
        keys = self._task.model_dump(mode="json")
        return digest_of([keys, self._commit, self._rows, batch_size, environment(device)])
