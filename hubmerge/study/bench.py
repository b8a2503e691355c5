"""Opened stream of a study: base model, checkpoints and tasks, which all cells share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from hubmerge.checkpoints import Checkpoint, with_copies
from hubmerge.errors import HubmergeError
from hubmerge.executor import (
    ExecutorContext,
    InMemoryCheckpoint,
    InMemoryModel,
    Merge,
    ReadOut,
    StepInput,
    pick_device,
)
from hubmerge.executor.reading import read_task_vector
from hubmerge.executor.state import State
from hubmerge.executor.stats.similarity import layer_of
from hubmerge.linalg import group_cosines, sketch
from hubmerge.methods import Method
from hubmerge.plan.plan_run import plan_steps
from hubmerge.plan.preflight import check_before_merge, resolve_checked
from hubmerge.plan.settings import input_dtype
from hubmerge.report.report import Scores, main_metric
from hubmerge.run.scoreboard import Scoreboard
from hubmerge.stream.open_source import open_base, open_source
from hubmerge.stream.pinned import PinnedCommits
from hubmerge.stream.sources import fetch_folder
from hubmerge.study.answers import pack_answers
from hubmerge.study.cells import task_content
from hubmerge.study.results import References
from hubmerge.study.schema import LoadedStudy
from hubmerge.support.progress import Progress, SilentProgress
from merge_recipes import Recipe, StreamEntry, Task, TensorParameters, task_entries
from merge_recipes.canonical import content_digest
from merge_recipes.language_task import LANGUAGE_KINDS

SHARE_OF_MEMORY = 0.5
"""Share of the free memory for checkpoints and states."""


class Bench:
    """Stream of a study, opened and planned; opened with `Bench.open`.

    `answers` has the packed answers of the last scored model to each classification task.
    """

    def __init__(self, loaded: LoadedStudy, cache: Path, progress: Progress, memory_bytes: float | None = None) -> None:
        recipe = loaded.recipe.recipe.model_copy(update={"publish": None})
        with progress.stage("resolve commits"):
            unpublished = replace(loaded.recipe, recipe=recipe)
            self.stream = resolve_checked(unpublished, PinnedCommits.gather(unpublished))
        self.recipe: Recipe = self.stream.recipe
        self.progress = progress
        self.device = pick_device()
        plan = partial(plan_steps, self.stream, 1, progress)
        check_before_merge(self.stream, progress, plan, needs_token=False)
        planned = plan()
        if planned.assembly is not None:
            raise _stacked(loaded)
        self.plan = planned.merge
        with progress.stage("fetch the base model"):
            base_folder = fetch_folder(self.stream.base, auxiliary=True)
        opened = open_base(self.stream.base, base_folder)
        self.base: Checkpoint = with_copies(opened, self.plan.copies)
        self.input_dtype = input_dtype(self.recipe)
        merged = [tensor.name for tensor in self.plan.merged]
        free = SHARE_OF_MEMORY * free_memory() if memory_bytes is None else memory_bytes
        needed = sum(tensor.elements * tensor.dtype.itemsize for tensor in self.plan.merged) * (self.stream.length + 1)
        self.in_memory = needed + 3 * self.plan.state_bytes <= free
        self.checkpoints: dict[str, Checkpoint] = {}
        with progress.stage("read the checkpoints", self.stream.length) as advance:
            for step, entry in enumerate(self.stream.entries, start=1):
                aligned = planned.alignments[step].apply(open_source(planned.sources[step].source))
                self.checkpoints[entry.name] = InMemoryCheckpoint(aligned, merged) if self.in_memory else aligned
                advance(1)
        self._own = {source.name: source.source for source in planned.sources[1:]}
        if self.in_memory:
            self.base = InMemoryCheckpoint(self.base, list(self.base.tensors))
        self.answers: dict[str, str] = {}
        self.scores = Scoreboard(
            self.stream, base_folder, cache, str(self.device), SilentProgress(), on_answers=self._take_answers
        )

    def _take_answers(self, task: str, right: np.ndarray) -> None:
        self.answers[task] = pack_answers(right)

    @classmethod
    @contextmanager
    def open(
        cls, loaded: LoadedStudy, cache: Path, progress: Progress, memory_bytes: float | None = None
    ) -> Iterator[Bench]:
        """Open the stream, and close its files at the end."""
        bench = cls(loaded, cache, progress, memory_bytes)
        try:
            yield bench
        finally:
            for checkpoint in bench.checkpoints.values():
                checkpoint.close()

    @property
    def context(self) -> ExecutorContext:
        """Device and dtype of the arithmetic."""
        return ExecutorContext(self.input_dtype, self.device)

    @property
    def commits(self) -> dict[str, str]:
        """Commits of the base model ("") and of every entry, by name."""
        names = [entry.name for entry in self.stream.entries]
        found = {name: locked.commit for name, locked in zip(names, self.stream.lock.models, strict=True)}
        return {"": self.stream.base.commit, **found}

    @property
    def datasets(self) -> dict[str, str]:
        """Commit of every task's dataset, or commits with + between them."""
        return {task.name: "+".join(self.stream.lock.commits_of(task.dataset)) for task in self.scores.tasks}

    def tasks_of(self, entries: Sequence[str]) -> tuple[Task, ...]:
        """Return the tasks without an entry, then those of the given entries in their order."""
        owners = task_entries(self.recipe)
        common = [task for task in self.scores.tasks if owners[task.name] is None]
        owned = [task for name in entries for task in self.scores.tasks if owners[task.name] == name]
        return (*common, *owned)

    def first_steps(self, entries: Sequence[str]) -> dict[str, int]:
        """Return for each task the step of its first score: the step of its entry, 1 if it has no entry."""
        owners = task_entries(self.recipe)
        steps = {name: step for step, name in enumerate(entries, start=1)}
        return {task.name: steps.get(owners[task.name] or "", 1) for task in self.tasks_of(entries)}

    def references_digest(self) -> str:
        """Return the digest of all inputs of the references."""
        tasks = [task_content(task, self.datasets.get(task.name)) for task in self.scores.tasks]
        return content_digest(["references", 1, self.commits, tasks])

    def references(self) -> References:
        """Score the base model and every checkpoint alone, and compare the task vectors."""
        owners = task_entries(self.recipe)
        names = tuple(entry.name for entry in self.stream.entries)
        base_scores = self.scores.score_on("the base model", self.scores.tasks, self.scores.base)
        own: dict[str, float] = {}
        for name in names:
            tasks = [task for task in self.scores.tasks if owners[task.name] == name]
            if tasks:
                scores = self.scores.score_on(name, tasks, open_source(self._own[name]), own=True)
                own |= main_scores(tasks, scores)
        cosines, layers = self._similarities(names)
        return References(
            self.references_digest(), names, main_scores(self.scores.tasks, base_scores), own, cosines, layers
        )

    def score_state(
        self, state: State, tasks: Sequence[Task], label: str, digest: str, read_out: ReadOut | None = None
    ) -> dict[str, float]:
        """Return the main score of each task for the merged model of a state.

        Args:
            state: the state.
            tasks: the tasks.
            label: the name of the model in messages.
            digest: the digest of the cell, which distinguishes models with the same label.
            read_out: the method, if it reads the merged delta out of the state.
        """
        model = InMemoryModel(
            self.base,
            state,
            self.plan,
            label=f"{label} ({digest})",
            input_dtype=self.input_dtype,
            read_out=read_out,
        )
        return main_scores(tasks, self.scores.score_on(label, tasks, model))

    def read_out(self, method: Method, entry: StreamEntry, recipe: Recipe) -> ReadOut | None:
        """Return the read-out of a method after an entry; None if it does not read states."""
        step_input = StepInput(
            self.checkpoints[entry.name], TensorParameters(method.Parameters, recipe, entry, self.plan.positions)
        )
        return Merge(self.base, method, self.plan).read_out(step_input)

    def _similarities(
        self, names: Sequence[str]
    ) -> tuple[list[list[float | None]], dict[str, list[list[float | None]]]]:
        """Return the cosines between all task vectors, over all tensors and by layer, estimated from sketches."""
        rows: dict[str, tuple[torch.Tensor, list[float]]] = {}
        for name in names:
            sketches, lengths = [], []
            for tensor in self.plan.merged:
                vector, length = read_task_vector(self.base, self.checkpoints[name], tensor.name, context=self.context)
                sketches.append(sketch(tensor.name, vector))
                lengths.append(length)
            rows[name] = torch.stack(sketches), lengths
        layers: dict[str, list[int]] = {}
        for row, tensor in enumerate(self.plan.merged):
            layers.setdefault(layer_of(tensor.name), []).append(row)
        groups = [list(range(len(self.plan.merged))), *layers.values()]
        table = [[group_cosines(rows[a][0], rows[b][0], rows[a][1], rows[b][1], groups) for b in names] for a in names]

        def of(group: int) -> list[list[float | None]]:
            return [
                [_rounded(found[group], exact=a == b) for b, found in enumerate(line)] for a, line in enumerate(table)
            ]

        return of(0), {layer: of(number) for number, layer in enumerate(layers, start=1)}


def main_scores(tasks: Sequence[Task], scores: Scores) -> dict[str, float]:
    """Return for each task the metric of the accuracy matrix."""
    found = {}
    for task in tasks:
        values = scores.get(task.name, {})
        # A task of a language model begins with its score, whose name may not be in the recipe.
        name = next(iter(values), "") if task.kind in LANGUAGE_KINDS else main_metric(task.metrics)
        value = values.get(name)
        if isinstance(value, (int, float)):
            found[task.name] = float(value)
    return found


def free_memory() -> int:
    """Return the bytes of free memory, 0 if the system does not report them."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0


def _rounded(cosine: float | None, *, exact: bool) -> float | None:
    """Return a cosine with four decimals; `exact` if it is that of a vector with itself."""
    if cosine is None:
        return None
    return 1.0 if exact else round(cosine, 4)


def _stacked(loaded: LoadedStudy) -> HubmergeError:
    path = loaded.recipe.path
    return HubmergeError(
        f"{path}: a study cannot stack layers: methods and orders are compared over the layers of the base model",
        hint=f"write `models` in the recipe, not `slices`; or merge and score it alone: hubmerge run {path}",
    )
