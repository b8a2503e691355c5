"""Statistics and scores of one cell, collected step by step."""

from __future__ import annotations

import time
from dataclasses import asdict

from hubmerge.executor import StepStats
from hubmerge.executor.joint import JointModel
from hubmerge.executor.state import State
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.study.bench import main_scores
from hubmerge.study.joint_cell import joint_step_result
from hubmerge.study.results import CellResult, References, StepResult
from hubmerge.study.shared_state import CellMerge
from merge_recipes import Task


class Stopwatch:
    """Clock that measures one lap after another."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last call, or since the beginning."""
        began, self._began = self._began, time.monotonic()
        return self._began - began


class CellScores:
    """Statistics and scores of one cell so far.

    `seconds` is the time of reading and scoring its models.
    """

    def __init__(self, merge: CellMerge, score: str) -> None:
        self.merge = merge
        self.seconds = 0.0
        self._every = score == "every"
        self._tasks = merge.bench.tasks_of(merge.order)
        self._first = merge.bench.first_steps(merge.order)
        names = tuple(task.name for task in self._tasks)
        self._matrix = AccuracyMatrix(names, tuple(self._first[name] for name in names))
        self._steps: list[StepResult] = []
        self._answers: dict[str, str] = {}

    def add(self, state: State, stats: StepStats, *, leads: bool) -> None:
        """Add the statistics of a step, and score its model if asked for.

        Args:
            state: the state after the step.
            stats: the statistics of the merge.
            leads: True if the state was merged with the parameters of this cell, and not of one with equal states.
        """
        merge, bench = self.merge, self.merge.bench
        if not leads:
            state, stats = merge.as_own(state, stats)
        self._steps.append(step_result(merge.order[state.step - 1], stats))
        if tasks := self._scored_at(state.step):
            read_out = bench.read_out(merge.method, merge.entries[state.step - 1], merge.recipe)
            bench.answers.clear()
            scores = bench.score_state(state, tasks, self._label(state.step), merge.digest, read_out)
            self._record(state.step, scores)

    def add_joint(self, step: int, model: JointModel | None) -> None:
        """Add a step of a joint method, and score its model if there is one and its scores are asked for."""
        bench = self.merge.bench
        self._steps.append(joint_step_result(self.merge.order[step - 1]))
        if model is not None and (tasks := self._scored_at(step)):
            bench.answers.clear()
            found = bench.scores.score_on(self._label(step), tasks, model)
            self._record(step, main_scores(tasks, found))

    def result(self, references: References, shared: float) -> CellResult:
        """Return the result of the complete cell.

        Args:
            references: the scores of the base model and of the checkpoints.
            shared: the seconds of merging, or this cell's part of them.
        """
        cell, matrix = self.merge.cell, self._matrix
        return CellResult(
            **asdict(cell),
            label=cell.label,
            digest=self.merge.digest,
            order=self.merge.order,
            steps=tuple(self._steps),
            matrix=matrix.to_dict(),
            seconds=round(self.seconds + shared, 3),
            share_of_own=matrix.share_of_own(references.own) if matrix.steps else None,
            answers=dict(self._answers),
        )

    def _scored_at(self, step: int) -> list[Task]:
        """Return the tasks to score after a step, none if the step is not scored."""
        if not self._every and step < len(self.merge.order):
            return []
        return [task for task in self._tasks if self._first[task.name] <= step]

    def _label(self, step: int) -> str:
        return f"{self.merge.cell.label}, step {step}"

    def _record(self, step: int, scores: dict[str, float]) -> None:
        self._matrix = self._matrix.record(step, scores)
        self._answers |= self.merge.bench.answers


def step_result(name: str, stats: StepStats) -> StepResult:
    """Return the statistics of a step for the results file."""
    ranks = [tensor.rank for tensor in stats.tensors if tensor.rank is not None]
    return StepResult(
        name=name,
        scale=stats.scale,
        accumulated_norm=stats.accumulated_norm,
        task_vector_norm=stats.task_vector_norm,
        drift=stats.drift,
        cosine=stats.cosine,
        removed_share=stats.removed_share,
        rank=sum(ranks) / len(ranks) if ranks else None,
    )
