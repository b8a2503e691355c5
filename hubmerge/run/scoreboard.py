"""Scores of the base model, the checkpoints and the merged models on the tasks of a recipe."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hubmerge.checkpoints import AdaptedCheckpoint, Checkpoint
from hubmerge.errors import DatasetError, ErrorCollector, EvaluationError
from hubmerge.evaluation import task_kind_named
from hubmerge.evaluation.kinds import HeadKind, PreparedTask, Scorer, Weights
from hubmerge.evaluation.own_head import OwnHead
from hubmerge.evaluation.score_inputs import digest_of, files_digest, head_digest
from hubmerge.hub.failures import is_outage
from hubmerge.plan.samples import as_recorded, sample_report
from hubmerge.report.report import License, Scores, TaskReport
from hubmerge.run.scoring import OnAnswers, Scoring, TaskToScore
from hubmerge.run.stored_heads import StoredHeads
from hubmerge.run.task_inputs import TaskInputs, data_report
from hubmerge.stream.licenses import read_dataset_license
from hubmerge.stream.located import located
from hubmerge.stream.open_source import open_base
from hubmerge.stream.sources import Source
from hubmerge.stream.stream import Stream
from hubmerge.stream.task_datasets import TASKS, located_in_dataset
from hubmerge.stream.task_steps import first_steps
from hubmerge.support import interrupts
from hubmerge.support.progress import Progress
from merge_recipes import DatasetReference, Task, task_entries
from merge_recipes.language_task import LANGUAGE_KINDS


class Scoreboard:
    """Tasks of a recipe. Each is prepared before its first score and kept for the rest of the run.

    `tasks` are those that are scored after the steps; `all_tasks` also has those for validation.
    """

    _prepared: dict[str, PreparedTask]
    _inputs: dict[str, str | None]  # digest of all that is not in the model, by task; None if its scores are not cached
    _structures: dict[str | None, str]  # digest of all in a model but its weights, by entry of the head

    def __init__(
        self,
        stream: Stream,
        base_folder: Path,
        cache: Path,
        device: str,
        progress: Progress,
        *,
        rows: Path | None = None,
        recorded: Sequence[TaskReport] = (),
        on_answers: OnAnswers | None = None,
    ) -> None:
        """Prepare to score.

        Args:
            stream: The stream.
            base_folder: Folder of the base model.
            cache: Folder for prepared inputs.
            device: Device of the models.
            progress: Receiver of stages.
            rows: Folder for rows, to compute every score anew; None for the caches of data sets and scores.
            recorded: Tasks of the steps that are published or on disk, which draw their examples as before.
            on_answers: Receiver of the name of a classification task and, per example, of True for a right answer.
        """
        evaluate = stream.recipe.evaluate
        asked = evaluate.tasks if evaluate is not None else ()
        self._samples = {task.name: sample_report(task.dataset, recorded) for task in asked}
        self.all_tasks: tuple[Task, ...] = tuple(as_recorded(task, recorded) for task in asked)
        self.tasks = tuple(task for task in self.all_tasks if not task.validation)
        self._batch_size = evaluate.batch_size if evaluate is not None else 1
        self._first_steps = first_steps(stream)
        self._stream, self._base_folder, self._rows = stream, base_folder, rows
        self.base: Checkpoint = open_base(stream.base, base_folder)
        self._identity, self._progress, self._recorded = _identity(stream.base), progress, recorded
        self._cache, self._device = cache, device
        self._scoring = Scoring.with_cache(progress, cache / "scores" if rows is None else None, on_answers)
        self._heads = StoredHeads(stream, self.base, cache, published=rows is None)
        self._scorers: dict[tuple[str, str | None], Scorer] = {}
        self._prepared, self._inputs, self._structures = {}, {}, {}
        self._licenses, self._reads_licenses = _recorded_licenses(recorded)

    def of_model(self, folder: Path, model: Checkpoint, identity: str) -> Scoreboard:
        """Return a scoreboard for a model of another structure than the base model, with stacked layers.

        Args:
            folder: Folder of the model.
            model: The model.
            identity: Digest of what it was made from.
        """
        found = copy.copy(self)
        found._base_folder, found.base, found._identity = folder, model, identity
        found._scorers, found._prepared, found._inputs, found._structures = {}, {}, {}, {}
        return found

    def seen(self, step: int) -> tuple[Task, ...]:
        """Return the tasks that are scored after a step."""
        return tuple(task for task in self.tasks if self._first_steps[task.name] <= step)

    def new(self, step: int) -> tuple[Task, ...]:
        """Return the tasks whose first score is after a step."""
        return tuple(task for task in self.tasks if self._first_steps[task.name] == step)

    def prepare_all(self) -> None:
        """Prepare all tasks of the recipe, so that mistakes in their rows are found before the first score.

        Raises:
            HubmergeError: One task cannot be prepared, or a `CombinedError` of several.
        """
        collector = ErrorCollector(is_outage)
        for task in self.all_tasks:
            interrupts.check()
            with collector.collect():
                self._prepare(task)
        collector.check()

    def score(self, step: int, weights: Weights) -> Scores:
        """Score the merged model of a step on all tasks up to that step."""
        tasks = self.seen(step)
        return self._score(f"step {step}: evaluate", tasks, weights) if tasks else {}

    def score_own(
        self, step: int, checkpoint: Checkpoint, entry: int | None = None, *, known: Collection[str] = ()
    ) -> Scores:
        """Score an unmerged checkpoint of a step on its own tasks.

        Args:
            step: The step.
            checkpoint: The checkpoint.
            entry: Number of its entry, from 1; by default that of the step.
            known: Tasks of earlier steps that have such a score, for a step that merges several checkpoints at once.
        """
        owners = task_entries(self._stream.recipe)
        name = self._stream.entries[(step if entry is None else entry) - 1].name
        scored = self.new(step) if entry is None else self.seen(step)
        tasks = tuple(task for task in scored if owners[task.name] == name and task.name not in known)
        return self._score(f"step {step}: evaluate the checkpoint alone", tasks, checkpoint, own=True) if tasks else {}

    def score_base(self, step: int, known: Collection[str]) -> Scores:
        """Score the base model on all tasks up to a step, except those in `known`."""
        tasks = tuple(task for task in self.seen(step) if task.name not in known)
        return self._score(f"step {step}: evaluate the base model", tasks, self.base) if tasks else {}

    def score_on(self, name: str, tasks: Sequence[Task], weights: Weights, *, own: bool = False) -> Scores:
        """Score a model on tasks of the recipe.

        Args:
            name: Name of the model, for the title of the stage.
            tasks: The tasks.
            weights: The model.
            own: True for an unmerged checkpoint, whose tensors outside the merge may differ from the base model.
        """
        return self._score(f"evaluate {name}", tuple(tasks), weights, own=own) if tasks else {}

    def task_reports(self) -> tuple[TaskReport, ...]:
        """Return the report of each task of the recipe."""
        reports = []
        for task in self.tasks:
            prepared = self._prepared.get(task.name)
            data = tuple(
                data_report(
                    task.dataset, source, commit, self._licenses.get((task.name, source.written_path, commit), ())
                )
                for source, commit in self._sources(task)
            )
            reports.append(
                TaskReport(
                    name=task.name,
                    kind=task.kind,
                    step=self._first_steps[task.name],
                    dataset=task.dataset.written_path,
                    subset=task.dataset.name,
                    split=task.dataset.split,
                    commit=data[0].commit,
                    metrics=self.metrics_of(task),
                    examples=prepared.examples if prepared else None,
                    classes=(len(prepared.class_names) or None) if prepared else None,
                    sampling=self._samples[task.name],
                    licenses=data[0].licenses,
                    head=self._head_entry(task),
                    more_data=data[1:],
                )
            )
        return tuple(reports)

    def metrics_of(self, task: Task) -> tuple[str, ...]:
        """Return the metrics of a task; those of some kinds are known when the task is prepared."""
        prepared = self._prepared.get(task.name)
        found: tuple[str, ...] | None = getattr(prepared, "metric_names", None)
        before = (one.metrics for one in self._recorded if one.name == task.name and one.kind in LANGUAGE_KINDS)
        return found or next(before, None) or task.metrics

    def commit_of(self, task: Task) -> str:
        """Return the commit of the data set of a task."""
        return self._stream.lock.commits_of(task.dataset)[0]

    def _sources(self, task: Task) -> Iterator[tuple[DatasetReference, str]]:
        return zip(task.dataset.sources, self._stream.lock.commits_of(task.dataset), strict=True)

    def _score(self, title: str, tasks: tuple[Task, ...], weights: Weights, *, own: bool = False) -> Scores:
        parameters = sum(math.prod(info.shape) for info in self.base.tensors.values())
        to_score = []
        for task in tasks:
            scorer, prepared = self._scorer(task), self._prepare(task)
            structure = self._structure(task) if self._inputs[task.name] and not self._is_partial(own=own) else None
            to_score.append(TaskToScore(task.kind, scorer, prepared, structure, self._inputs[task.name]))
        return self._scoring.score(title, to_score, weights, own=own, parameters=parameters)

    def _is_partial(self, *, own: bool) -> bool:
        """Return True for checkpoints whose files are not read whole; to digest them, they would be."""
        return own and self._stream.recipe.fetch == "ranges"

    def _structure(self, task: Task) -> str:
        """Return the digest of everything in a model but its weights, for the tasks with the head of one task."""
        head = self._head(task)
        key = None if head is None else head.facts.entry
        if key not in self._structures:
            self._structures[key] = digest_of([self._identity, files_digest(self._base_folder), head_digest(head)])
        return self._structures[key]

    def _head(self, task: Task) -> OwnHead | None:
        """Return the head of a checkpoint that scores a task, None for the base model's."""
        try:
            return self._heads.of_task(task, self._recorded)
        except EvaluationError as error:
            raise located(error, self._stream.loaded, (*TASKS, self.all_tasks.index(task), "head")) from error

    def _head_entry(self, task: Task) -> str | None:
        if task.name not in self._prepared:
            return next((one.head for one in self._recorded if one.name == task.name), None)
        head = self._head(task)
        return None if head is None else head.facts.entry

    def _scorer(self, task: Task) -> Scorer:
        head = self._head(task)
        key = (task.kind, None if head is None else head.facts.entry)
        if key not in self._scorers:
            kind = task_kind_named(task.kind)
            options: dict[str, str] = {"identity": self._identity, "device": self._device}
            if head is not None and isinstance(kind, HeadKind):
                scorer = kind.open_head_scorer(self._base_folder, self.base, head, **options)
            else:
                scorer = kind.open_scorer(self._base_folder, self.base, **options)
                if isinstance(self.base, AdaptedCheckpoint):
                    scorer.load_base()  # the folder has the model without its adapter
            self._scorers[key] = scorer
        return self._scorers[key]

    def _prepare(self, task: Task) -> PreparedTask:
        if task.name not in self._prepared:
            with self._progress.stage(f"prepare task {task.name}"):
                try:
                    self._prepared[task.name] = self._prepare_rows(task)
                except (DatasetError, EvaluationError) as error:
                    commits = {source.path: commit for source, commit in self._sources(task)}
                    raise located_in_dataset(error, self._stream.loaded, self.all_tasks.index(task), commits) from error
                for source, commit in self._sources(task):
                    key_of_license = (task.name, source.written_path, commit)
                    if self._reads_licenses and key_of_license not in self._licenses:
                        self._licenses[key_of_license] = (read_dataset_license(source.path, commit),)
        return self._prepared[task.name]

    def _prepare_rows(self, task: Task) -> PreparedTask:
        commits = self._stream.lock.commits_of(task.dataset)
        kind = task_kind_named(task.kind)
        inputs = TaskInputs(task, commits, self._rows, digests=self._scoring.cache is not None)
        prepared = kind.prepare(
            task,
            inputs.read if getattr(kind, "reads_splits", False) else inputs.read(task.dataset),
            self._scorer(task),
            self._cache,
            dataset_commit=commits[0],
            batch_size=self._batch_size,
            load_metric=inputs.load_metric,
        )
        self._inputs[task.name] = inputs.digest(self._batch_size, self._device)
        return prepared


def _recorded_licenses(
    recorded: Sequence[TaskReport],
) -> tuple[dict[tuple[str, str, str | None], tuple[License, ...]], bool]:
    """Return the licenses of earlier tasks, and whether those of new tasks are read.

    A stream whose earlier tasks have no licenses, as those of version 0.1.0, stays without.
    """
    licenses = {(task.name, one.path, one.commit): one.licenses for task in recorded for one in task.data}
    return licenses, not recorded or any(licenses.values())


def _identity(base: Source) -> str:
    return base.commit if base.adapter is None else f"{base.commit}+{base.adapter.commit}"
