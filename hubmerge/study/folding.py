"""One cell: merge its stream step by step, in memory where that fits, and score it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hubmerge.errors import MachineError
from hubmerge.executor import InMemoryModel, InMemoryState, Merge, StepInput, StepStats, merge_steps
from hubmerge.executor.state import State
from hubmerge.methods import method_named
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.study.bench import Bench, main_scores
from hubmerge.study.cells import Cell
from hubmerge.study.results import CellResult, References, StepResult
from merge_recipes import TensorParameters

PERTURBATION = 1e-12
"""How much the first accumulated delta is changed, relative to each element."""


def fold_cell(bench: Bench, cell: Cell, digest: str, references: References, *, score: str, work: Path) -> CellResult:
    """Merge and score one cell."""
    began = time.monotonic()
    recipe = cell.recipe(bench.recipe)
    entries = recipe.stream()
    method = method_named(cell.method)
    order = tuple(entry.name for entry in entries)
    tasks = bench.tasks_of(order)
    first = bench.first_steps(order)
    matrix = AccuracyMatrix(tuple(task.name for task in tasks), tuple(first[task.name] for task in tasks))
    state: State | None = None
    steps = []
    with _states(bench, work) as folder_of:
        for step, entry in enumerate(entries, start=1):
            incoming = StepInput(bench.checkpoints[entry.name], TensorParameters(method.Parameters, recipe, entry))
            merge = Merge(bench.base, method, bench.plan)
            state, (figures,) = merge_steps(
                merge, [incoming], state, folder_of(step), sketches=False, context=bench.context
            )
            state = disturbed(state, cell, step)
            steps.append(step_result(entry.name, figures))
            if tasks and (score == "every" or step == len(entries)):
                seen = [task for task in tasks if first[task.name] <= step]
                label = f"{cell.label}, step {step} ({digest})"
                model = InMemoryModel(bench.base, state, bench.plan, label=label, input_dtype=bench.input_dtype)
                scores = bench.scores.score_on(f"{cell.label}, step {step}", seen, model)
                matrix = matrix.record(step, main_scores(seen, scores))
    return CellResult(
        digest=digest,
        series=cell.series,
        label=cell.label,
        method=cell.method,
        parameters=cell.parameters,
        point=cell.point,
        tasks=cell.tasks,
        seed=cell.seed,
        round_to=cell.round_to,
        perturb=cell.perturb,
        order=order,
        steps=tuple(steps),
        matrix=matrix.to_dict(),
        seconds=round(time.monotonic() - began, 3),
        share_of_own=matrix.share_of_own(references.own) if matrix.steps else None,
    )


@contextmanager
def _states(bench: Bench, work: Path) -> Iterator[Callable[[int], Path | None]]:
    """Where the states of a cell go: nowhere but memory, or folders that are gone afterwards."""
    if bench.held:
        yield lambda step: None
        return
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:

        def folder_of(step: int) -> Path:
            shutil.rmtree(Path(folder, str(step - 2)), ignore_errors=True)
            return Path(folder, str(step))

        yield folder_of


def step_result(name: str, figures: StepStats) -> StepResult:
    """What is kept of the figures of one step."""
    ranks = [tensor.rank for tensor in figures.tensors if tensor.rank is not None]
    return StepResult(
        name=name,
        scale=figures.scale,
        accumulated_norm=figures.accumulated_norm,
        task_vector_norm=figures.task_vector_norm,
        drift=figures.accumulated_norm / figures.scale,
        cosine=figures.cosine,
        removed_share=figures.removed_share,
        rank=sum(ranks) / len(ranks) if ranks else None,
    )


def disturbed(state: State, cell: Cell, step: int) -> State:
    """The state as the cell wants it changed: rounded after every step, or a little off after the first.

    Raises MachineError if it is to be changed and does not fit into memory.
    """
    if cell.round_to is None and cell.perturb is None:
        return state
    if not isinstance(state, InMemoryState):
        raise MachineError(
            f"{cell.label}: this machine has too little memory to keep the state in, which changing it needs",
            hint="leave round_to and perturb out of the study",
        )
    if cell.round_to is not None:
        dtype = getattr(torch, cell.round_to)
        return state.changed(lambda values: values.to(dtype).to(torch.float64))
    if cell.perturb is not None and step == 1:
        generator = torch.Generator().manual_seed(cell.perturb)

        def change(values: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(values.shape, generator=generator, dtype=torch.float64)
            return values * (1.0 + PERTURBATION * noise.to(values.device))

        return state.changed(change)
    return state
