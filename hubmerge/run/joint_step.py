"""A step that merges all models at once: its inputs, its files and its report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hubmerge.checkpoints import Checkpoint, check_ties
from hubmerge.executor import WrittenModel
from hubmerge.executor.joint import JointInput, JointMerge, write_joint
from hubmerge.executor.parallel.tasks import run_on_all
from hubmerge.plan.budget import joint_method
from hubmerge.plan.settings import max_shard_bytes
from hubmerge.plan.speeds import record_merge
from hubmerge.report.inputs import LayerRange, StackedLayers
from hubmerge.report.report import MergedModel, RunReport, StepReport, TensorSummary
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.run.stacked_step import stacked_merge
from merge_recipes import TensorParameters


def joint_merge(context: RunContext, step: int, checkpoints: Sequence[Checkpoint]) -> JointMerge:
    """Return the inputs of a step.

    Args:
        context: The run.
        step: The step.
        checkpoints: The opened checkpoints of its entries, in their order.

    Raises:
        CheckpointError: Tied tensors differ.
    """
    stream, plan, recipe = context.stream, context.plan, context.stream.recipe
    if plan.assembly is not None:
        return stacked_merge(context, plan.assembly, checkpoints)
    for number, checkpoint in zip(stream.entries_of(step), checkpoints, strict=True):
        context.own_rows(number, checkpoint)  # models read rows of new tokens from each other
    method = joint_method(recipe)
    models, positions = [], plan.merge.positions
    if method.base_joins and recipe.names_base and not recipe.lists_base and recipe.first_layers is None:
        models.append(JointInput(context.base, TensorParameters(method.Parameters, recipe, None, positions)))
    for number, checkpoint in zip(stream.entries_of(step), checkpoints, strict=True):
        entry = stream.entries[number - 1]
        if stream.is_base(number) and method.base != "model":
            continue
        aligned = context.base if stream.is_base(number) else context.aligned(number, checkpoint)
        check_ties(aligned, plan.merge)
        models.append(JointInput(aligned, TensorParameters(method.Parameters, recipe, entry, positions)))
    has_origin = method.base != "model" and recipe.names_base
    return JointMerge(context.base, method, plan.merge, models, has_origin=has_origin, seed=recipe.seed or 0)


def write_joint_step(context: RunContext, step: int, checkpoints: Sequence[Checkpoint], folder: Path) -> WrittenModel:
    """Merge all models of a step and write the weights. Rounding error and drift are not measured.

    Args:
        context: The run.
        step: The step.
        checkpoints: The opened checkpoints of its entries, in their order.
        folder: Folder of the merged model.

    Raises:
        CheckpointError: A value is not finite, or does not fit into its dtype.
        MachineError: The folder cannot be written.
    """
    plan = context.plan.written
    if step > 1:
        context.progress.note(f"step {step}: recomputed from all {len(checkpoints)} models, not from step {step - 1}")
    began = time.monotonic()
    title = context.title(range(step, step + 1), "merge")
    with tensor_stage(context.progress, title, len(plan.tensors)) as advance:
        files = run_on_all(
            context.executor(count_tensors(advance)),
            write_joint,
            joint_merge(context, step, checkpoints),
            plan,
            folder,
            max_shard_bytes=max_shard_bytes(context.stream.recipe),
        )
    record_merge(context.stream.recipe.merge_method, context.plan.counted_seconds, time.monotonic() - began)
    return WrittenModel(files, None, None)


def record_joint_step(context: RunContext, step: int, so_far: RunReport, *, notes: Sequence[str] = ()) -> RunReport:
    """Return a report with a joint step added.

    Args:
        context: The run.
        step: The step.
        so_far: Report up to the step before it.
        notes: Warnings about the plan of the step. A warning that an earlier step has is not repeated.
    """
    stream, merge, licenses = context.stream, context.plan.merge, context.licenses
    known = {warning for earlier in so_far.steps for warning in earlier.warnings}
    entries = stream.entries_of(step)
    locked = [stream.lock.models[entry - 1] for entry in entries]
    inputs = tuple(
        MergedModel(one.name, str(one.reference), one.commit, licenses.of_step(entry))
        for entry, one in zip(entries, locked, strict=True)
    )
    report = StepReport(
        step=step,
        name=stream.step_name(step),
        reference=inputs[-1].reference,
        commit=inputs[-1].commit,
        scale=None,
        accumulated_norm=None,
        task_vector_norm=None,
        tensors=TensorSummary(
            weight_matrices=merge.counts["merge-matrix"],
            other_tensors=merge.counts["merge-other"],
            averaged=len(merge.averaged) if merge.statistics_rule is not None else None,
        ),
        chain_digest=stream.chain[step],
        warnings=tuple(note for note in dict.fromkeys(notes) if note not in known),
        inputs=inputs,
        tokenizer=None if context.plan.vocabulary is None else context.plan.vocabulary.report,
        layers=_stacked_layers(context),
    )
    base = replace(so_far.base_model, licenses=licenses.of_step(0))
    so_far = replace(so_far, base_model=base, tokenizer=_lent_tokenizer(context))
    return so_far.with_step(report).until(step)


def _lent_tokenizer(context: RunContext) -> MergedModel | None:
    """Return the model that only lends its tokenizer, for the report."""
    lent = context.stream.lock.tokenizer
    if lent is None:
        return None
    return MergedModel(lent.name, str(lent.reference), lent.commit, context.licenses.of_tokenizer(lent.name))


def _stacked_layers(context: RunContext) -> tuple[StackedLayers, ...]:
    """Return where the layers of a stacked model are from, for the report."""
    return tuple(
        StackedLayers(row.first, row.last, tuple(LayerRange(*source) for source in row.sources))
        for row in context.plan.stacked
    )
