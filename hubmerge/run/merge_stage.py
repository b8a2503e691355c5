"""Second stage of a run: merge the checkpoints of a batch into the state."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.checkpoints import check_ties
from hubmerge.executor import StepInput, StepStats, merge_steps
from hubmerge.executor.parallel.tasks import run_on_all
from hubmerge.executor.state import MergeState
from hubmerge.plan.speeds import record_merge
from hubmerge.run.measures import far_off_warnings, similarity_warnings
from hubmerge.run.run_context import RunContext, count_tensors, tensor_stage
from hubmerge.run.step_batch import StepBatch
from hubmerge.run.step_report import write_stats


@dataclass(frozen=True)
class MergeStage:
    """Merge of checkpoints into the state."""

    context: RunContext

    def merge(self, batch: StepBatch, previous: MergeState | None, folder: Path) -> StepBatch:
        """Merge a fetched batch and write its state, with the statistics of the steps, into a folder.

        Args:
            batch: Batch from the fetch stage.
            previous: State of the step before the batch, None at step 1.
            folder: Folder of the new state.

        Raises:
            CheckpointError: A value is not finite, or tied tensors differ.
            MachineError: The state cannot be written.
        """
        context = self.context
        if context.stream.is_joint:
            return batch  # merged while the model is written: there is no state
        inputs, began = self._inputs(batch), time.monotonic()
        title, total = context.title(batch.steps, "merge"), len(context.plan.merge.merged)
        with tensor_stage(context.progress, title, total) as advance:
            state, stats = run_on_all(
                context.executor(count_tensors(advance)),
                merge_steps,
                context.merge,
                inputs,
                previous,
                folder,
                chain=context.stream.chain[batch.last],
                older_steps=context.older_steps,
            )
        seconds = (time.monotonic() - began) / len(batch.steps)
        record_merge(context.stream.recipe.merge_method, context.plan.counted_seconds, seconds)
        write_stats(stats, state)
        self._warn(stats, state.manifest.task_vector_norms)
        return replace(batch, state=state)

    def _inputs(self, batch: StepBatch) -> list[StepInput]:
        plan = self.context.plan
        aligned = [
            plan.alignments[step].apply(checkpoint)
            for step, checkpoint in zip(batch.steps, batch.checkpoints, strict=True)
        ]
        for checkpoint in aligned:
            check_ties(checkpoint, plan.merge)
        return [
            self.context.step_input(step, checkpoint) for step, checkpoint in zip(batch.steps, aligned, strict=True)
        ]

    def _warn(self, stats: Sequence[StepStats], norms: Sequence[float]) -> None:
        for step in stats:
            far_off = far_off_warnings(step, self.context.stream.entries, norms)
            for warning in (*similarity_warnings(step, self.context.names), *far_off):
                self.context.progress.note(f"warning: step {step.step}: {warning}")
