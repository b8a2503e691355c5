"""Survey: a method sees all merged tensors before a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from hubmerge.checkpoints import PlannedTensor
from hubmerge.executor.absorb.batch_work import StepBatch
from hubmerge.executor.parallel.processes import gather, run_share
from hubmerge.executor.parallel.scheduling import iterate_completed
from hubmerge.methods.base import Result

TENSORS_PER_GATHER = 8
"""Tensors per process whose results are sent to the other processes at one time."""


def survey(batch: StepBatch, stop: Path) -> StepBatch:
    """Prepare the method for the one step of the batch.

    Args:
        batch: a batch of one step.
        stop: the file that tells the other processes that one failed.

    Raises:
        ValueError: the batch has more than one step.
    """
    method = batch.methods[0]
    if len(batch.inputs) > 1:
        raise ValueError(f"{method.name} takes one step at a time")
    parameters = batch.merge.model_parameters(batch.inputs[0])
    return batch.with_methods([method.prepare_step(ModelSweep(batch, stop), parameters, step=batch.steps[0])])


@dataclass(frozen=True)
class ModelSweep:
    """Implementation of `hubmerge.methods.Sweep`."""

    batch: StepBatch
    stop: Path

    def __call__(self, look: Callable[[torch.Tensor, torch.Tensor], Result]) -> Iterable[Result]:
        """Yield `look(accumulated, task_vector)` for every tensor that the method merges, in any order."""
        batch, context, tensors = self.batch, self.batch.context, self.batch.merge.method_tensors

        def see(tensor: PlannedTensor) -> Result:
            return look(batch.accumulated_before(tensor), batch.task_vector(tensor, batch.inputs[0])[0])

        if context.processes.count == 1:
            yield from (result for _, result in iterate_completed(tensors, see, workers=context.workers))
            return
        # A few tensors of each process at a time: the results of all of them could be large.
        at_once = TENSORS_PER_GATHER * context.processes.count
        for begin in range(0, len(tensors), at_once):
            seen = run_share(
                tensors[begin : begin + at_once],
                see,
                processes=context.processes,
                cost=lambda tensor: float(tensor.elements),
                stop=self.stop,
                workers=context.workers,
            )
            for own in gather(context.processes, seen):
                yield from own.values()
