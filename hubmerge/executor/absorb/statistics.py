"""Steps on one statistic, such as the variance of batch normalization: a weighted mean of the checkpoints.

A statistic is no weight: sums and projections of its changes mean nothing, and could make a variance negative. The
state has the mean itself, not its difference from the base model, so that the mean of numbers that are not negative is
not negative either. Statistics have no part in norms, cosines and sketches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hubmerge.checkpoints import Checkpoint, PlannedTensor
from hubmerge.errors import CheckpointError
from hubmerge.executor.absorb.step_input import Merge, StepInput, TensorStep, sketch_row
from hubmerge.executor.parts import AVERAGE, SUM_OF_WEIGHTS, part_key, rounded
from hubmerge.executor.reading import all_finite, not_finite
from hubmerge.executor.state import State
from hubmerge.executor.state_writer import AnyStateWriter
from hubmerge.executor.stats.stats import TensorStats
from hubmerge.linalg import SKETCH_SIZE, cast_once, difference, frobenius_norm
from hubmerge.methods import Method

SMALLEST_TOTAL = 1e-12
"""Sums of weights that are smaller, relative to the sum before an entry was taken out, are zero up to rounding."""


class AveragedTensor:
    """One statistic in a batch of steps."""

    def __init__(
        self,
        merge: Merge,
        previous: State | None,
        tensor: PlannedTensor,
        *,
        input_dtype: torch.dtype | None,
        sketches: bool,
    ) -> None:
        self._base = merge.base
        self._previous = previous
        self._tensor = tensor
        self._input_dtype = input_dtype
        self._sketches = sketches
        self._state_dtype = merge.state_dtype

    def absorb(
        self, inputs: Sequence[StepInput], methods: Sequence[Method], writer: AnyStateWriter
    ) -> list[TensorStep]:
        """Do the steps, write the mean, and return the result of each step.

        Entries with a weight of 0 or less have no part. The mean is the base model's value as long as no entry has one.

        Raises:
            CheckpointError: a value is not finite, or negative where it must not be.
        """
        name = self._tensor.name
        base = self._values(self._base, None)
        mean, total = self._before(base)
        results = []
        for one, method in zip(inputs, methods, strict=True):
            values = self._values(one.checkpoint, base)
            weight = method.statistic_weight(one.parameters_for(name))
            if weight > 0.0:
                before, total = total, total + one.sign * weight
                if one.sign > 0:
                    mean = moved_mean(mean, values, weight / total)
                else:
                    mean = base if total <= SMALLEST_TOTAL * before else self._without(mean, values, weight / total)
            mean = rounded(mean, self._state_dtype)
            results.append(self._result(difference(values, base), difference(mean, base)))
        writer.write(name, mean)
        writer.write_part(part_key(SUM_OF_WEIGHTS, name), torch.tensor(total, dtype=torch.float64))
        return results

    def _without(self, mean: torch.Tensor, values: torch.Tensor, share: float) -> torch.Tensor:
        """Return the mean without values that have this weight, relative to that of all others."""
        finite = mean + (mean - values) * share
        if self._tensor.never_negative:
            finite = finite.clamp(min=0.0)
        return torch.where(mean.isinf(), mean, torch.where(values.isinf(), values, finite))

    def _before(self, base: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return the mean and the sum of the weights before the first step."""
        if self._previous is None:
            return base, 0.0
        total = self._previous.read_part(part_key(SUM_OF_WEIGHTS, self._tensor.name))
        return self._previous.read(self._tensor.name).cpu(), 0.0 if total is None else float(total)

    def _values(self, checkpoint: Checkpoint, base: torch.Tensor | None) -> torch.Tensor:
        """Return the values of a model. A limit that is infinite in the base model may be so in a checkpoint."""
        name = self._tensor.name
        stored = checkpoint.read(name)
        rounded = stored if self._input_dtype is None else cast_once(stored, self._input_dtype)
        values = rounded.to(torch.float64)
        kept = values if base is None else base
        if not all_finite(torch.where(kept.isinf() & (values == kept), 0.0, values)):
            raise not_finite(self._base, checkpoint, name, self._input_dtype)
        if self._tensor.never_negative and bool((values < 0.0).any()):
            raise CheckpointError(
                f"{checkpoint.label}: tensor {name!r} has a negative value, expected none below 0",
                hint="do not merge this checkpoint; training probably diverged, or the file is corrupt",
                tensor=name,
            )
        return values

    def _result(self, task_vector: torch.Tensor, change: torch.Tensor) -> TensorStep:
        stats = TensorStats(
            name=self._tensor.name,
            action=AVERAGE,
            task_vector_norm=finite_norm(task_vector),
            accumulated_norm=finite_norm(change),
        )
        nothing = sketch_row(0.0, torch.zeros(SKETCH_SIZE, dtype=torch.float32))
        return TensorStep(stats, nothing if self._sketches else torch.empty(0))


def finite_norm(tensor: torch.Tensor) -> float:
    """Return the norm of the finite values of a tensor."""
    return frobenius_norm(torch.where(tensor.isfinite(), tensor, 0.0))


def moved_mean(mean: torch.Tensor, values: torch.Tensor, share: float) -> torch.Tensor:
    """Return the mean with more values, which are this share of all; a limit that is infinite in one model stays so."""
    if share == 1.0:
        return values
    finite = torch.lerp(mean, values, share)
    return torch.where(mean.isinf(), mean, torch.where(values.isinf(), values, finite))
