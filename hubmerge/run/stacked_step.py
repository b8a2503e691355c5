"""Inputs of a step that stacks layers, slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from hubmerge.checkpoints import Checkpoint, check_ties, with_copies
from hubmerge.checkpoints.matching.alignment import AlignedCheckpoint
from hubmerge.checkpoints.stacking.assembly import Assembly
from hubmerge.executor.joint import JointInput, JointMerge
from hubmerge.plan.budget import joint_method
from hubmerge.run.run_context import RunContext
from merge_recipes import Recipe, TensorParameters


def stacked_merge(context: RunContext, assembly: Assembly, checkpoints: Sequence[Checkpoint]) -> JointMerge:
    """Return the inputs of a step that stacks layers.

    Args:
        context: The run.
        assembly: The places of the layers.
        checkpoints: The opened checkpoints of its entries, in their order.

    Raises:
        CheckpointError: Tied tensors differ.
    """
    plan, recipe = context.plan, context.stream.recipe
    own = context.base  # opened first: rows of new tokens may be read from it
    models = {number: context.own_rows(number, one) for number, one in enumerate(checkpoints, start=1)}
    base = with_copies(assembly.base_of(own, models), plan.merge.copies)
    check_ties(base, plan.merge)
    slots = [plan.alignments[number].apply(slot) for number, slot in enumerate(assembly.slots_of(models), start=1)]
    for slot in slots:
        check_ties(slot, plan.merge)
    whole = JointMerge(base, joint_method(recipe), plan.merge, (), seed=recipe.seed or 0)
    slices = tuple(_slice(whole, recipe, assembly, number, slots) for number in range(len(assembly.cuts)))
    return replace(whole, slices=slices, slice_of=partial(_slice_of, assembly))


def _slice_of(assembly: Assembly, name: str) -> int:
    return assembly.position(name)[0]


def _position_of(assembly: Assembly, name: str) -> float:
    return assembly.position(name)[1]


def _slice(
    whole: JointMerge, recipe: Recipe, assembly: Assembly, number: int, slots: Sequence[AlignedCheckpoint]
) -> JointMerge:
    """Return the inputs of one slice."""
    own, cut, method = recipe.of_slice(number) if recipe.slices else recipe, assembly.cuts[number], whole.method
    has_origin = method.base != "model" and recipe.names_base and any(own.is_base(entry) for entry in own.entries)
    positions = partial(_position_of, assembly)
    models = [
        JointInput(slots[slot], TensorParameters(method.Parameters, own, entry, positions))
        for slot, entry in enumerate(own.entries)
        if not (has_origin and slot == cut.origin)
    ]
    return replace(whole, models=models, has_origin=has_origin)
