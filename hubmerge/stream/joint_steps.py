"""Steps of a recipe that merges all models at once: the recorded ones, and the next one.

A joint step is merged anew from all its models. So the steps before it stay as they are, whatever the parameters are
now, as long as their models are still in the recipe; a recipe with more models adds a step.
"""

from __future__ import annotations

from hubmerge.report.report import RunReport, StepReport
from merge_recipes import Lock, Recipe, joint_digest

Inputs = tuple[tuple[int, ...], ...]


def joint_steps(recipe: Recipe, lock: Lock, recorded: RunReport | None) -> tuple[tuple[str, ...], Inputs]:
    """Return the digest of every step, the first one for the base model, and the entries of each step, from 1.

    Args:
        recipe: A recipe whose stream has the models of the lock, in this order.
        lock: The lock.
        recorded: Report of finished steps, None if there is none.
    """
    whole = tuple(range(1, len(lock.models) + 1))
    digest = joint_digest(recipe, lock)
    digests: list[str] = [lock.recipe]
    inputs: list[tuple[int, ...]] = []
    for step in _fitting(recipe, lock, recorded):
        entries = tuple(_place(lock, *model) + 1 for model in _inputs(step))
        changed = set(entries) == set(whole) and step.chain_digest != digest
        if changed:
            break
        digests.append(step.chain_digest or "")
        inputs.append(entries)
        if step.chain_digest == digest:
            return tuple(digests), tuple(inputs)
    return (*digests, digest), (*inputs, whole)


def missing_inputs(step: StepReport, lock: Lock) -> list[str]:
    """Return the names of the models of a step that a lock does not have."""
    return [model.name for model, one in zip(step.inputs, _inputs(step), strict=True) if _place(lock, *one) < 0]


def _fitting(recipe: Recipe, lock: Lock, recorded: RunReport | None) -> list[StepReport]:
    """Return the leading recorded steps with this base model and method, whose models are all in the lock."""
    if recorded is None or recorded.merge_method != recipe.merge_method:
        return []
    if recorded.base_model.commit != lock.base_model.commit:
        return []
    fitting: list[StepReport] = []
    for step in recorded.steps:
        if not step.inputs or missing_inputs(step, lock):
            break
        fitting.append(step)
    return fitting


def _inputs(step: StepReport) -> list[tuple[str, str]]:
    return [(model.reference, model.commit) for model in step.inputs]


def _place(lock: Lock, reference: str, commit: str) -> int:
    """Return the place of a model in a lock, -1 if it is not there."""
    known = [(str(model.reference), model.commit) for model in lock.models]
    return known.index((reference, commit)) if (reference, commit) in known else -1
