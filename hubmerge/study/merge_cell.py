"""Merge and score cells of a study step by step, in memory if they fit."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel

from hubmerge.errors import HubmergeError, MachineError
from hubmerge.executor import InMemoryState, Merge, StepInput, StepStats, merge_steps
from hubmerge.executor.state import State
from hubmerge.methods import JointMethod, Method, method_of
from hubmerge.plan.settings import state_dtype
from hubmerge.study.bench import Bench
from hubmerge.study.cell_scores import CellScores, Stopwatch
from hubmerge.study.cells import Cell
from hubmerge.study.joint_cell import joint_models
from hubmerge.study.results import CellResult, References
from hubmerge.study.shared_state import CellMerge
from merge_recipes import StreamEntry

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


def merge_cells(group: Sequence[CellMerge], references: References, *, score: str, work: Path) -> Iterator[CellResult]:
    """Merge cells whose states are equal once, score each, and yield every result as soon as it is complete.

    A cell that fails does not stop the others.

    Args:
        group: the cells, one of `grouped_by_state`.
        references: the scores of the base model and of the checkpoints.
        score: "every" to score every step, "last" for the last one.
        work: the folder for states that do not fit into memory.

    Raises:
        HubmergeError: the merge failed, or, after all others are complete, the first cell that could not be scored.
    """
    bench, first = group[0].bench, group[0]
    method = method_of(first.recipe)
    if isinstance(method, JointMethod):
        yield _joint_cell(CellScores(first, score), method, references)
        return
    scored = [CellScores(merge, score) for merge in group]
    failures: list[HubmergeError] = []
    shared, clock = 0.0, Stopwatch()
    with _state_folders(bench, work) as folder_of:
        for step, state, stats in _merged_cell(first, folder_of):
            shared += clock.lap()
            for cell in tuple(scored):
                try:
                    cell.add(state, stats, leads=cell.merge is first)
                except HubmergeError as error:
                    bench.progress.note(f"{cell.merge.cell.label} cannot be scored: {error.message}")
                    failures.append(error)
                    scored.remove(cell)
                cell.seconds += clock.lap()
                if step == len(first.order) and cell in scored:
                    yield cell.result(references, shared / len(group))
            if not scored:
                break
    if failures:
        raise failures[0]


def _joint_cell(cell: CellScores, method: JointMethod, references: References) -> CellResult:
    """Merge and score a cell whose method merges all models at once."""
    clock = Stopwatch()
    for step, model in joint_models(cell.merge.bench, cell.merge.cell, method, cell.merge.digest):
        cell.add_joint(step, model)
    return cell.result(references, clock.lap())


def _merged_cell(merge: CellMerge, folder_of: Callable[[int], Path | None]) -> Iterator[tuple[int, State, StepStats]]:
    """Merge the entries of a cell with its parameters and changes; yield as `merged_steps` does."""

    def change(state: State, step: int) -> State:
        return changed_state(state, merge.cell, step)

    yield from merged_steps(
        merge.bench, merge.method, merge.entries, merge.parameters, change=change, folder_of=folder_of
    )


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
