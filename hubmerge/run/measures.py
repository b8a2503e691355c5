"""What the figures of a step say of it in the report: sums over tensors, drift, similarities, and warnings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from hubmerge.executor.stats.stats import StepStats
from hubmerge.report.report import MatrixFigures, Spread, StepSimilarity, TensorSummary

CLOSE = 0.25
"""Task vectors of unrelated tasks have cosines near 0; those of two halves of one dataset 0.4 and more."""

COARSE = 0.1
"""A rounding error of a tenth of the merged delta's length is a hundredth of its squared length; float32 has 1e-5."""
LOST = 0.9
"""Where the dtype gives the base model back, the rounding error is the merged delta itself."""


def measures(figures: StepStats, names: Sequence[str]) -> dict[str, Any]:
    """The fields of a `StepReport` that come from the figures of its step; `names` are those of all steps so far."""
    matrices = [tensor for tensor in figures.tensors if tensor.action == "merge-matrix"]
    errors = [tensor.error for tensor in matrices if tensor.error is not None]
    return {
        "scale": figures.scale,
        "accumulated_norm": figures.accumulated_norm,
        "task_vector_norm": figures.task_vector_norm,
        "drift": figures.accumulated_norm / figures.scale,
        "removed_share": figures.removed_share,
        "tensors": TensorSummary(
            weight_matrices=len(matrices),
            other_tensors=len(figures.tensors) - len(matrices),
            rank=Spread.of([float(rank) for tensor in matrices for rank in tensor.ranks]),
            removed_share=Spread.of([tensor.removed_share for tensor in matrices]),
            error=Spread.of(errors),
        ),
        "matrices": tuple(
            MatrixFigures(tensor.name, tensor.rank, tensor.directions or 0, tensor.removed_share)
            for tensor in matrices
            if tensor.rank is not None
        ),
        "similarity": figures.cosine,
        "similarities": tuple(
            StepSimilarity(earlier.step, names[earlier.step - 1], earlier.cosine, dict(earlier.layers))
            for earlier in figures.similarities
        ),
        "warnings": tuple(warnings(figures, names)),
    }


def warnings(figures: StepStats, names: Sequence[str]) -> list[str]:
    """What a person should know before this step is merged, or as soon as it is."""
    close = [
        f"{names[earlier.step - 1]} (step {earlier.step}, cosine about {earlier.cosine:.2f})"
        for earlier in figures.similarities
        if earlier.cosine is not None and earlier.cosine >= CLOSE
    ]
    if not close and figures.cosine is not None and figures.cosine >= CLOSE:
        close = [f"what is merged already (cosine {figures.cosine:.2f})"]
    if not close:
        return []
    loss = (
        f"the projection discards {100 * figures.removed_share:.0f} % of its squared length"
        if figures.removed_share > 0.0
        else "the method adds it all the same"
    )
    return [f"the task vector of {names[figures.step - 1]} is close to that of {' and '.join(close)}: {loss}"]


def rounding_warnings(rounding: float | None, dtypes: Iterable[torch.dtype]) -> list[str]:
    """What a person should know of the rounding of a written model whose merged tensors have `dtypes`."""
    if rounding is None or rounding < COARSE:
        return []
    wider = "float32" if any(dtype.itemsize < torch.float32.itemsize for dtype in dtypes) else "float64"
    if rounding < LOST:
        lost = f"rounding the written weights lost {100 * rounding:.0f} % of the length of what was merged"
    else:
        lost = (
            f"rounding the written weights lost what was merged (the error is {100 * rounding:.0f} % of its length): "
            "the model is in effect the base model"
        )
    return [f"{lost}; set out_dtype: {wider} in the recipe"]
