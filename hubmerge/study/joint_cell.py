"""Cells of a study whose method merges all models at once: each step is merged anew from the entries so far."""

from __future__ import annotations

from collections.abc import Iterator

from hubmerge.errors import HubmergeError
from hubmerge.executor.joint import JointInput, JointMerge, JointModel
from hubmerge.methods import JointMethod
from hubmerge.study.bench import Bench
from hubmerge.study.cells import Cell
from hubmerge.study.results import StepResult
from merge_recipes import TensorParameters


def joint_models(bench: Bench, cell: Cell, method: JointMethod, digest: str) -> Iterator[tuple[int, JointModel | None]]:
    """Yield for every step the model of the entries so far; None if the method does not take so many models.

    Args:
        bench: the opened stream of the study.
        cell: the cell.
        method: its method.
        digest: its digest, which distinguishes models with the same label.

    Raises:
        HubmergeError: the cell changes a state, and a joint merge has none.
    """
    if cell.round_to is not None or cell.perturb is not None:
        raise HubmergeError(
            f"{cell.label}: {method.name} has no state, which `round_to` and `perturb` change",
            hint="remove `round_to` and `perturb` of this method from the study",
        )
    recipe = cell.recipe(bench.recipe)
    inputs = [
        JointInput(bench.checkpoints[entry.name], TensorParameters(method.Parameters, recipe, entry))
        for entry in recipe.stream()
    ]
    for step in range(1, len(inputs) + 1):
        if step < method.fewest or (method.most is not None and step > method.most):
            yield step, None
            continue
        joint = JointMerge(
            bench.base, method, bench.plan, inputs[:step], has_origin=method.base != "model", seed=recipe.seed or 0
        )
        yield step, JointModel(joint, label=f"{cell.label}, step {step} ({digest})", context=bench.context)


def joint_step_result(name: str) -> StepResult:
    """Return the statistics of a step of which none is measured."""
    return StepResult(name, None, None, None, None, None, None, None)
