"""Statistics of a batch of steps, from the results of all tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hubmerge.executor.absorb.batch_work import StepBatch
from hubmerge.executor.absorb.step_input import TensorStep
from hubmerge.executor.parts import AVERAGE
from hubmerge.executor.stats.similarity import Sketches, compare_all, compare_sketches
from hubmerge.executor.stats.stats import AllCosines, Similarity, StepStats, overall_cosine, overall_share
from hubmerge.linalg import total_norm
from hubmerge.methods import Norms


@dataclass(frozen=True)
class BatchSummary:
    """Statistics of every step, sketches of the task vectors to keep, and norms of all task vectors so far."""

    stats: tuple[StepStats, ...]
    sketches: Sketches
    task_vector_norms: tuple[float, ...]


def summarize(batch: StepBatch, results: Sequence[Sequence[TensorStep]]) -> BatchSummary:
    """Return the summary of a batch; `results` has the steps of each tensor, in the order of the plan."""
    previous = batch.previous
    before = {} if previous is None else previous.manifest.tensors
    accumulated = [before[tensor.name].accumulated_norm if before else 0.0 for tensor in batch.merge.plan.merged]
    norms = () if previous is None else previous.manifest.task_vector_norms
    sketches = batch.sketches_before()
    found: list[StepStats] = []
    for index in range(len(batch.inputs)):
        similarities: tuple[Similarity, ...] = ()
        cosines = AllCosines()
        if batch.sketches:
            rows = torch.stack([steps[index].sketch for steps in results])
            similarities = compare_sketches(rows, sketches, [steps[index].stats for steps in results])
            names = [tensor.name for tensor in batch.merge.plan.merged]
            cosines = compare_all(rows, sketches, batch.steps[index], names)
            sketches = sketches.added(batch.steps[index], rows, names)
        stats = _step_stats(batch, index, results, accumulated, norms)
        found.append(replace(stats, similarities=similarities, cosines=cosines))
        norms = (*norms, math.copysign(stats.task_vector_norm, batch.inputs[index].sign))
        accumulated = [tensor.accumulated_norm for tensor in stats.tensors]
    return BatchSummary(tuple(found), sketches, norms)


def _step_stats(
    batch: StepBatch,
    index: int,
    results: Sequence[Sequence[TensorStep]],
    accumulated_before: Sequence[float],
    norms_before: tuple[float, ...],
) -> StepStats:
    step_input, method = batch.inputs[index], batch.methods[index]
    tensors = tuple(steps[index].stats for steps in results)
    plan = batch.merge.plan
    pairs = zip(tensors, accumulated_before, strict=True)
    weights = [(tensor, norm) for tensor, norm in pairs if tensor.action != AVERAGE]
    own = [tensor for tensor, _ in weights]
    task_vector_norm = total_norm(tensor.task_vector_norm for tensor in own)
    accumulated_norm = total_norm(tensor.accumulated_norm for tensor in own)
    norms = Norms(accumulated_norm, (*norms_before, math.copysign(task_vector_norm, step_input.sign)))
    return StepStats(
        step=batch.steps[index],
        checkpoint=step_input.checkpoint.label,
        method=method.name,
        task_vector_norm=task_vector_norm,
        accumulated_norm=accumulated_norm,
        scale=method.scale(norms, batch.merge.model_parameters(step_input)),
        cosine=overall_cosine(own, [norm for _, norm in weights]),
        removed_share=overall_share(own),
        tensors=tensors,
        reads_state=method.reads_state,
        revoked=step_input.sign < 0,
        averaged=len(plan.averaged) if plan.statistics_rule is not None else None,
    )
