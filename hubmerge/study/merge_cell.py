"""Merge and score one cell of a study step by step, in memory if it fits."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import BaseModel

from hubmerge.errors import MachineError
from hubmerge.executor import InMemoryState, Merge, StepInput, StepStats, merge_steps
from hubmerge.executor.state import State
from hubmerge.methods import JointMethod, Method, method_named, method_of
from hubmerge.plan.settings import state_dtype
from hubmerge.report.accuracy import AccuracyMatrix
from hubmerge.study.bench import Bench, main_scores
from hubmerge.study.cells import Cell
from hubmerge.study.joint_cell import joint_models, joint_step_result
from hubmerge.study.results import CellResult, References, StepResult
from merge_recipes import StreamEntry, TensorParameters

PERTURBATION = 1e-12
"""Relative change of each element of the first accumulated delta."""


def merged_steps(
    bench: Bench,
    method: Method,
    entries: Sequence[StreamEntry],
    parameters: Callable[[StreamEntry], Callable[[str], BaseModel]],
    *,
    change: Callable[[State, int], State] = lambda state, _: state,
    folder_of: Callable[[int], Path | None] = lambda _: None,
) -> Iterator[tuple[int, State, StepStats]]:
    """Merge entries one after another, and yield after every step its number, the state and the statistics.

    Args:
        bench: the opened stream.
        method: the merge method.
        entries: the entries in merge order.
        parameters: returns for an entry the parameters by tensor name.
        change: returns the state to continue from after a step.
        folder_of: returns the folder for the state of a step, None to keep it in memory.
    """
    state: State | None = None
    for step, entry in enumerate(entries, start=1):
        step_input = StepInput(bench.checkpoints[entry.name], parameters(entry))
        merge = Merge(bench.base, method, bench.plan, state_dtype(bench.recipe))
        state, (stats,) = merge_steps(
            merge, [step_input], state, folder_of(step), sketches=False, context=bench.context
        )
        state = change(state, step)
        yield step, state, stats


def merge_cell(bench: Bench, cell: Cell, digest: str, references: References, *, score: str, work: Path) -> CellResult:
    """Merge and score one cell.

    Args:
        bench: the opened stream of the study.
        cell: the cell.
        digest: its digest.
        references: the scores of the base model and of the checkpoints.
        score: "every" to score every step, "last" for the last one.
        work: the folder for states that do not fit into memory.
    """
    began = time.monotonic()
    recipe = cell.recipe(bench.recipe)
    order = tuple(entry.name for entry in recipe.stream())
    tasks = bench.tasks_of(order)
    first = bench.first_steps(order)
    matrix = AccuracyMatrix(tuple(task.name for task in tasks), tuple(first[task.name] for task in tasks))
    steps = []
    method = method_of(recipe)
    bench.answers.clear()
    if isinstance(method, JointMethod):
        for step, model in joint_models(bench, cell, method, digest):
            steps.append(joint_step_result(order[step - 1]))
            if tasks and model is not None and (score == "every" or step == len(order)):
                seen = [task for task in tasks if first[task.name] <= step]
                found = bench.scores.score_on(f"{cell.label}, step {step}", seen, model)
                matrix = matrix.record(step, main_scores(seen, found))
        return _result(cell, digest, order, steps, matrix, began, references, bench.answers)
    with _state_folders(bench, work) as folder_of:
        for step, state, stats in _merged_cell(bench, cell, folder_of):
            steps.append(step_result(order[step - 1], stats))
            if tasks and (score == "every" or step == len(order)):
                seen = [task for task in tasks if first[task.name] <= step]
                read_out = bench.read_out(method_named(cell.method), recipe.stream()[step - 1], recipe)
                scores = bench.score_state(state, seen, f"{cell.label}, step {step}", digest, read_out)
                matrix = matrix.record(step, scores)
    return _result(cell, digest, order, steps, matrix, began, references, bench.answers)


def _result(
    cell: Cell,
    digest: str,
    order: tuple[str, ...],
    steps: Sequence[StepResult],
    matrix: AccuracyMatrix,
    began: float,
    references: References,
    answers: dict[str, str],
) -> CellResult:
    return CellResult(
        **asdict(cell),
        label=cell.label,
        digest=digest,
        order=order,
        steps=tuple(steps),
        matrix=matrix.to_dict(),
        seconds=round(time.monotonic() - began, 3),
        share_of_own=matrix.share_of_own(references.own) if matrix.steps else None,
        answers=dict(answers),
    )


def _merged_cell(
    bench: Bench, cell: Cell, folder_of: Callable[[int], Path | None]
) -> Iterator[tuple[int, State, StepStats]]:
    """Merge the entries of a cell with its parameters and changes; yield as `merged_steps` does."""
    recipe = cell.recipe(bench.recipe)
    method = method_named(cell.method)

    def parameters(entry: StreamEntry) -> Callable[[str], BaseModel]:
        return TensorParameters(method.Parameters, recipe, entry, bench.plan.positions)

    def change(state: State, step: int) -> State:
        return changed_state(state, cell, step)

    yield from merged_steps(bench, method, recipe.stream(), parameters, change=change, folder_of=folder_of)


@contextmanager
def _state_folders(bench: Bench, work: Path) -> Iterator[Callable[[int], Path | None]]:
    """Return a function for the folder of each state: none in memory, else folders that are removed at the end."""
    if bench.in_memory:
        yield lambda _: None
        return
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:

        def folder_of(step: int) -> Path:
            shutil.rmtree(Path(folder, str(step - 2)), ignore_errors=True)
            return Path(folder, str(step))

        yield folder_of


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


def changed_state(state: State, cell: Cell, step: int) -> State:
    """Return the state with the change of the cell: rounded after every step, or perturbed after the first.

    Raises:
        MachineError: the state does not fit into memory, and the cell changes it.
    """
    if cell.round_to is None and cell.perturb is None:
        return state
    if not isinstance(state, InMemoryState):
        raise MachineError(
            f"{cell.label}: too little memory for the state, which `round_to` and `perturb` change in memory",
            hint="remove `round_to` and `perturb` from the study, or use a machine with more memory",
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
