"""Scores of one model on prepared tasks; those whose inputs did not change are taken from a cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hubmerge.checkpoints import Checkpoint
from hubmerge.evaluation.kinds import ClassificationTask, PreparedTask, ReleasableScorer, Scorer, Weights
from hubmerge.evaluation.score_cache import ScoreCache, is_score_cache_on
from hubmerge.evaluation.score_inputs import digest_of, weights_digest
from hubmerge.plan.speeds import record_scores
from hubmerge.report.report import MetricValue, Scores
from hubmerge.support import interrupts
from hubmerge.support.progress import Progress, counting
from hubmerge.support.text import counted

if TYPE_CHECKING:
    import numpy as np

OnAnswers = Callable[[str, "np.ndarray"], None]
"""Receiver of the name of a classification task and of one truth value for each example."""


@dataclass(frozen=True)
class TaskToScore:
    """A prepared task with the scorer of its kind.

    Attributes:
        kind: Name of its kind.
        scorer: The scorer.
        prepared: The prepared task.
        structure: Digest of everything in the model but its weights: files of the base model, head. None without cache.
        inputs: Digest of everything that is not in the model. None if scores of the task are not cached.
    """

    kind: str
    scorer: Scorer
    prepared: PreparedTask
    structure: str | None = None
    inputs: str | None = None


@dataclass(frozen=True)
class Scoring:
    """Scores of models.

    Attributes:
        progress: Receiver of stages.
        cache: The cache, None to compute every score.
        on_answers: Receiver of answers.
    """

    progress: Progress
    cache: ScoreCache | None
    on_answers: OnAnswers | None = None

    @classmethod
    def with_cache(cls, progress: Progress, folder: Path | None, on_answers: OnAnswers | None) -> Scoring:
        """Return scores with a cache in a folder, unless answers are asked for or the environment turns it off."""
        cached = folder is not None and on_answers is None and is_score_cache_on()
        return cls(progress, ScoreCache(folder) if folder is not None and cached else None, on_answers)

    def score(
        self, title: str, tasks: Sequence[TaskToScore], weights: Weights, *, own: bool, parameters: int
    ) -> Scores:
        """Return the scores of a model on each task, in the order of the tasks.

        Args:
            title: Title of the stage.
            tasks: The tasks.
            weights: The model.
            own: True for an unmerged checkpoint.
            parameters: Number of parameters of the model.
        """
        keys = self._keys(tasks, weights, own=own)
        found: Scores = {}
        for task in tasks:
            name = task.prepared.name
            values = self.cache.get(*keys[name]) if self.cache is not None and name in keys else None
            if values is not None:
                found[name] = values
        missing = [task for task in tasks if task.prepared.name not in found]
        if found:
            self.progress.note(f"{title}: scores of {counted(len(found), 'task', 'tasks')} taken from the cache")
        if missing:
            found |= self._compute(title, missing, weights, own=own, parameters=parameters, keys=keys)
        return {task.prepared.name: found[task.prepared.name] for task in tasks}

    def _keys(self, tasks: Sequence[TaskToScore], weights: Weights, *, own: bool) -> dict[str, tuple[str, str]]:
        """Return the digests of the model and of the task, for each task whose scores are cached."""
        cached = [task for task in tasks if task.structure is not None and task.inputs is not None]
        if self.cache is None or not cached or not isinstance(weights, Checkpoint):
            return {}
        values = weights_digest(weights)
        return {task.prepared.name: (digest_of([values, task.structure, own]), str(task.inputs)) for task in cached}

    def _compute(
        self,
        title: str,
        tasks: Sequence[TaskToScore],
        weights: Weights,
        *,
        own: bool,
        parameters: int,
        keys: dict[str, tuple[str, str]],
    ) -> Scores:
        scores: Scores = {}
        before: Scorer | None = None
        with self.progress.stage(title, sum(task.prepared.examples for task in tasks), "examples") as advance:
            for task in tasks:
                interrupts.check()
                scorer, prepared = task.scorer, task.prepared
                if isinstance(before, ReleasableScorer) and before is not scorer:
                    before.release()
                if scorer.label != weights.label:
                    scorer.load(weights, check_frozen=not own)
                began = time.monotonic()
                with counting(advance) as counter:
                    counter.show(prepared.name)
                    scores[prepared.name], before = self._values(prepared, scorer), scorer
                    counter.add(prepared.examples - counter.done)
                record_scores(task.kind, parameters, prepared.examples, time.monotonic() - began)
                if self.cache is not None and prepared.name in keys:
                    self.cache.put(*keys[prepared.name], scores[prepared.name])
        if isinstance(before, ReleasableScorer):
            before.release()
        return scores

    def _values(self, task: PreparedTask, scorer: Scorer) -> dict[str, MetricValue]:
        if self.on_answers is None or not isinstance(task, ClassificationTask):
            return task.score(scorer)
        from hubmerge.evaluation.classes import score_classes  # only tasks need what it imports

        logits = task.logits(scorer)
        self.on_answers(task.name, logits.argmax(axis=1) == task.labels)
        return score_classes(task.metrics, logits, task.labels)
