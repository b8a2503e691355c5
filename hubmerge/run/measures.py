"""Fields of a step report that come from the statistics of a merge, and warnings about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from hubmerge.checkpoints import MergePlan
from hubmerge.checkpoints.planning.name_rule import DESCRIPTION
from hubmerge.executor.stats.stats import StepStats
from hubmerge.report.outliers import cosine_warnings, outlier_warnings
from hubmerge.report.report import MatrixStats, Spread, StepSimilarity, TensorSummary
from hubmerge.support.text import counted, listed
from merge_recipes import StreamEntry

CLOSE = 0.25
"""Cosine of task vectors from which a step is reported as close to another. Unrelated tasks have cosines near 0, two
halves of one dataset 0.4 and more."""

CLOSE_NAMED = 3
"""Number of close steps that a warning names; those with the largest cosines."""

COARSE = 0.1
"""Rounding error, relative to the length of the merged delta, from which it is reported. Float32 has about 1e-5."""
LOST = 0.9
"""Rounding error from which the written model is in effect the base model."""


def measures(stats: StepStats, names: Sequence[str], far_off: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a `StepReport` that come from the merge.

    Args:
        stats: Statistics of the step.
        names: Names of all steps so far, in order.
        far_off: Warnings about entries far off the others.
    """
    matrices = [tensor for tensor in stats.tensors if tensor.action == "merge-matrix"]
    errors = [tensor.error for tensor in matrices if tensor.error is not None]
    return {
        "scale": stats.scale,
        "accumulated_norm": stats.accumulated_norm,
        "task_vector_norm": stats.task_vector_norm,
        "drift": stats.drift,
        "removed_share": stats.removed_share,
        "tensors": TensorSummary(
            weight_matrices=len(matrices),
            other_tensors=sum(tensor.action == "merge-other" for tensor in stats.tensors),
            rank=Spread.of([float(rank) for tensor in matrices for rank in tensor.ranks]),
            removed_share=Spread.of([tensor.removed_share for tensor in matrices]),
            error=Spread.of(errors),
            averaged=stats.averaged,
        ),
        "matrices": tuple(
            MatrixStats(tensor.name, tensor.rank, tensor.directions or 0, tensor.removed_share)
            for tensor in matrices
            if tensor.rank is not None
        ),
        "similarity": stats.cosine,
        "similarities": tuple(
            StepSimilarity(earlier.step, names[earlier.step - 1], earlier.cosine, dict(earlier.layers))
            for earlier in stats.similarities
        ),
        "warnings": (*similarity_warnings(stats, names), *far_off),
    }


def far_off_warnings(stats: StepStats, entries: Sequence[StreamEntry], norms: Sequence[float]) -> list[str]:
    """Return warnings about task vectors of abnormal length or direction, see `hubmerge.report.outliers`.

    Args:
        stats: Statistics of the step.
        entries: The entries of all steps, in order.
        norms: Norms of the task vectors of all steps up to this one, or more.
    """
    merged = entries[: stats.step]
    if len(norms) < stats.step:
        return []
    out = {entry.revoke for entry in merged if entry.revoke} | {entry.name for entry in merged if entry.revoke}
    names = [entry.name for entry in merged]
    live = {step: name for step, name in enumerate(names, start=1) if name not in out}
    found = stats.cosines.between(live)
    cosines = {live[step]: {live[other]: value for other, value in row.items()} for step, row in found.items()}
    lengths = outlier_warnings(names, [abs(norm) for norm in norms[: stats.step]], out)
    return [*lengths, *cosine_warnings(cosines, names[-1])]


def similarity_warnings(stats: StepStats, names: Sequence[str]) -> list[str]:
    """Return a warning if the task vector of a step is close to that of an earlier step.

    Args:
        stats: Statistics of the step.
        names: Names of all steps so far, in order.
    """
    if stats.revoked:
        return []
    cosines = {one.step: one.cosine for one in stats.similarities if one.cosine is not None and one.cosine >= CLOSE}
    named = sorted(sorted(cosines, key=lambda step: (-cosines[step], step))[:CLOSE_NAMED])
    close = [f"{names[step - 1]} (step {step}, cosine about {cosines[step]:.2f})" for step in named]
    if len(cosines) > CLOSE_NAMED:
        close.append(f"{len(cosines) - CLOSE_NAMED} more")
    if not close and stats.cosine is not None and stats.cosine >= CLOSE:
        close = [f"the steps merged so far (cosine {stats.cosine:.2f})"]
    if not close:
        return []
    effect = (
        f"the projection discards {100 * stats.removed_share:.0f} % of its squared length"
        if stats.removed_share > 0.0
        else "the method adds it without projection"
    )
    return [f"the task vector of {names[stats.step - 1]} is close to that of {' and '.join(close)}: {effect}"]


def by_name_warnings(plan: MergePlan) -> list[str]:
    """Return a warning if the class of the base model is not known, and weight matrices were found by name alone."""
    if plan.no_class is None:
        return []
    count = counted(plan.counts["merge-matrix"], "weight matrix", "weight matrices")
    return [f"{count} found by name, not by the model's class ({plan.no_class}): {DESCRIPTION}"]


def part_warnings(plan: MergePlan) -> list[str]:
    """Return which models inside of the base model are merged, if not all are."""
    return [] if plan.part is None else [plan.part[0].lower() + plan.part[1:]]


def untied_warnings(plan: MergePlan) -> list[str]:
    """Return a warning if tensors that the base model ties are tensors of their own in the merged model."""
    if not plan.copies:
        return []
    pairs = [f"{name} ({stored} in the base model)" for name, stored in plan.copies.items()]
    return [f"the base model ties embeddings and not all checkpoints do; tensors of their own: {listed(pairs, most=3)}"]


def rounding_warnings(rounding: float | None, dtypes: Iterable[torch.dtype]) -> list[str]:
    """Return a warning if rounding the written weights lost much of the merged delta.

    Args:
        rounding: Rounding error, relative to the length of the merged delta, None if no model was written.
        dtypes: Dtypes of the written tensors that were merged.
    """
    if rounding is None or rounding < COARSE:
        return []
    wider = "float32" if any(dtype.itemsize < torch.float32.itemsize for dtype in dtypes) else "float64"
    lost = f"rounding the written weights lost {100 * rounding:.0f} % of the merged delta's length"
    if rounding >= LOST:
        lost += "; the written model is in effect the base model"
    return [f"{lost}; set out_dtype: {wider} in the recipe"]
