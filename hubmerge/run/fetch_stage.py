"""First stage of a run: fetch the checkpoints of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hubmerge.checkpoints import Checkpoint
from hubmerge.errors import HubmergeError
from hubmerge.run.run_context import RunContext
from hubmerge.run.step_batch import StepBatch
from hubmerge.stream.open_source import open_source
from hubmerge.support.progress import counting
from hubmerge.support.stages import BYTES


@dataclass(frozen=True)
class FetchStage:
    """Download and opening of checkpoints.

    Attributes:
        context: The run.
        partial_downloads: Folder for checkpoints of which only the merged tensors are fetched (`fetch: ranges`).
    """

    context: RunContext
    partial_downloads: Path

    def fetch(self, batch: StepBatch) -> StepBatch:
        """Open the checkpoints of a batch, up to the first one that fails; the batch then ends before it."""
        missing = sum(self.context.plan.missing_bytes_of(step) for step in batch.steps)
        title = self.context.title(batch.steps, "fetch")
        with self.context.progress.stage(title, missing or None, BYTES) as advance, counting(advance):
            return self._fetch(batch)

    def _fetch(self, batch: StepBatch) -> StepBatch:
        checkpoints: list[Checkpoint] = []
        entries = [entry for step in batch.steps for entry in self.context.stream.entries_of(step)]
        for entry in entries:
            try:
                checkpoints.append(self._open(entry))
            except HubmergeError as error:
                if self.context.stream.is_joint:
                    return replace(batch, steps=batch.steps[:0], failure=error)
                return replace(
                    batch, steps=batch.steps[: len(checkpoints)], checkpoints=tuple(checkpoints), failure=error
                )
        return replace(batch, checkpoints=tuple(checkpoints))

    def _open(self, entry: int) -> Checkpoint:
        """Open a checkpoint after fetching it whole into the Hub cache, or its merged tensors into the work folder."""
        plan = self.context.plan
        source = plan.sources[entry].source
        if self.context.stream.recipe.fetch == "cache" or (plan.assembly is None and entry not in plan.alignments):
            return open_source(source)
        checkpoint = open_source(source, self.partial_downloads)
        if plan.assembly is not None:
            self.context.own_rows(entry, checkpoint).prepare(plan.assembly.needed(entry))
        else:
            self.context.aligned(entry, checkpoint).prepare([tensor.name for tensor in plan.merge.merged])
        return checkpoint
